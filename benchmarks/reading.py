"""What every claim tells the table and the figures: each folder has a `shown.py` that says it.

`rows(result)` are lines of the table in `benchmarks/README.md`; `draw(result, folder)` writes
the figures there. Both see nothing but `result.json`, so they can be made again at any time.
"""

import dataclasses

__all__ = ["CLAIMS", "Claim", "Row"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    claim: str
    """What is claimed, in one clause, with the setting."""
    number: str
    """What was measured, with its error: `+7.3 points (5.9 to 8.7)`."""
    instead: str
    """What a user would otherwise pick, with its number: `raw-reward RL, 0.804`."""
    holds: bool | None = True
    """Whether it was seen; False is a negative result, None neither."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A folder of `benchmarks/`."""

    folder: str
    """Its name."""
    programs: tuple[tuple[str, ...], ...]
    """Arguments of the interpreter, in order; each also takes `--smoke`."""
    slow: tuple[tuple[str, ...], ...] = ()
    """Likewise, but left out of a smoke run: they load the embedded model even there."""
    result: str = "result.json"
    """The file the table reads."""


def _module(folder: str, *names: str) -> Claim:
    return Claim(folder, tuple(("-m", f"benchmarks.{folder}.{name}") for name in names or ("run",)))


def _script(folder: str, *names: str, slow: str = "", result: str = "result.json") -> Claim:
    files = tuple((f"benchmarks/{folder}/{name}.py",) for name in names)
    others = ((f"benchmarks/{folder}/{slow}.py",),) if slow else ()
    return Claim(folder, files, others, result)


CLAIMS: tuple[Claim, ...] = (
    _module("frontier", "text", "run"),
    _module("prediction"),
    _module("calibration"),
    _module("hacking"),
    _module("estimators"),
    _module("standard"),
    _module("mismatch"),
    _module("cost"),
    _module("optimal_transform"),
    _script("planner", "run"),
    _script("sampling", "run"),
    _script("scoring", "run"),
    _script("store", "run"),
    _script("decoding", "inflection", "speed", slow="budgets", result="budgets.json"),
)
"""In the order of the table."""
