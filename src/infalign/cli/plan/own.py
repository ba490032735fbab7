"""A transform or a procedure of the user's own: `module:name`, from the working directory."""

import functools
import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.transforms import Transform

__all__ = ["is_own", "lacks_variation", "own_procedure", "own_transform"]


def is_own(name: str) -> bool:
    """Whether a name is `module:name`, not one of ours such as `exponential:2.5`."""
    return re.fullmatch(r"\s*[^\W\d][\w.]*:[^\W\d][\w.]*\s*", name) is not None


def own_transform(path: str) -> "Transform":
    """A function as a transform, or a transform as it is.

    Raises:
        ValueError: not found, not a function, or not increasing, saying where.
    """
    from infalign.quantile.transforms import Custom, Transform

    found: Any = _imported("--transform", path)
    if isinstance(found, Transform):
        return found
    if isinstance(found, type) or not callable(found):
        raise ValueError(
            f"--transform {path} is {_kind(found)}; a function of an array of quantiles is needed, "
            "or a transform such as infalign.Exponential(5)."
        )
    try:
        function: Callable[[Any], Any] = found
        return Custom(function, path.strip().partition(":")[2])
    except ValueError:
        raise
    except Exception as error:  # the user's code: whatever it raises is theirs to mend
        raise ValueError(
            f"--transform {path} raised {type(error).__name__}: {error}. It is called with an "
            "array of quantiles in [0,1] and returns as many numbers."
        ) from error


@functools.cache
def own_procedure(path: str, option: str = "--procedure") -> "Procedure":
    """A procedure of the user's own, that keeps its contract.

    Raises:
        ValueError: not found, not a procedure, or at odds with itself, saying how.
    """
    from infalign.quantile.procedures import Procedure, check_procedure

    found = _imported(option, path)
    if not isinstance(found, Procedure):
        raise ValueError(
            f"{option} {path} is {_kind(found)}; a procedure object is needed, such as "
            "MINE = Lottery(4) of a class made from infalign.Procedure."
        )
    check_procedure(found)
    return found


def lacks_variation(path: str) -> bool:
    """Whether a procedure leaves its first variation to finite differences."""
    from infalign.quantile.procedures import Procedure

    return type(own_procedure(path)).first_variation is Procedure.first_variation


def _imported(option: str, path: str) -> Any:
    """What stands under the name; the module may lie where the command is started."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module, _, name = path.strip().partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module of the user's may raise anything
        raise ValueError(
            f"{option} {path} could not be imported: {type(error).__name__}: {error}. Give "
            "`module:name` with the module on the Python path (set PYTHONPATH, or run from its "
            "folder)."
        ) from error
    return found


def _kind(found: Any) -> str:
    return f"the class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
