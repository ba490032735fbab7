"""One verb per stage, plus `run`, `plan` and `demo`.

Results go to standard output, everything said on the way to standard error. Whatever the user can
mend ends with exit code 2 and a message, Ctrl-C with 130 and the command that goes on, and only a
defect shows a traceback.
"""

from collections.abc import Sequence

from infalign.cli.quiet import quiet_libraries

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script `infalign`; ends the process with the exit code.

    Args:
        arguments: what stands after `infalign`; the process's own by default.
    """
    quiet_libraries()
    from infalign.cli.app import run  # after the settings that libraries read when they load

    run(arguments)
