"""How a benchmark ends as a program: a user's mistake is one line and exit code 2."""

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["program"]


def program(main: Callable[[], Any]) -> None:
    """Runs it and ends the process.

    Exit codes: 0; 2 for what the user can mend, such as data or a folder that cannot be used; 130
    when interrupted.
    """
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        print(
            error if not error.filename else f"{error.filename}: {error.strerror}", file=sys.stderr
        )
        sys.exit(2)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
