"""Transforms and procedures by name: what the experiment file and the command line speak."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    Identity,
    OrderStatistic,
    RankProcedure,
    WorstOfN,
    median_of,
)
from infalign.quantile.transforms import Exponential, Log, Transform
from infalign.quantile.transforms import Identity as IdentityTransform

__all__ = [
    "PROCEDURE_NAMES",
    "TRANSFORM_NAMES",
    "procedure_from_name",
    "transform_from_name",
]

Member = TypeVar("Member")

_TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "identity": IdentityTransform,
    "log": Log,
    "exponential": Exponential,
    "optimal": optimal_transform,
}
_PROCEDURES: dict[str, Callable[..., RankProcedure]] = {
    "identity": Identity,
    "best_of_n": BestOfN,
    "worst_of_n": WorstOfN,
    "median_of_n": median_of,
    "order_statistic": OrderStatistic,
}
TRANSFORM_NAMES = tuple(_TRANSFORMS)
"""Names `transform_from_name` knows."""
PROCEDURE_NAMES = tuple(_PROCEDURES)
"""Names `procedure_from_name` knows."""


def transform_from_name(name: str, **settings: Any) -> Transform:
    """The transform of that name, e.g. ``exponential`` with t = 10.

    Args:
        name: one of `TRANSFORM_NAMES`.
        **settings: its fields: `t` for exponential; `procedure` and `kl` (or `beta`) for optimal.

    Raises:
        ValueError: on an unknown name or setting, with the nearest right one.

    Example:
        >>> transform_from_name("exponential", t=-10).name
        'exp(-10)'
        >>> transform_from_name("exponentail")
        Traceback (most recent call last):
        ...
        ValueError: Unknown transform 'exponentail'. Did you mean 'exponential'? Known: identity, log, exponential, optimal.
    """  # noqa: E501
    return _member("transform", _TRANSFORMS, name, settings)


def procedure_from_name(name: str, **settings: Any) -> RankProcedure:
    """The rank procedure of that name, e.g. ``best_of_n`` with n = 4.

    ``best-of-n`` is read as ``best_of_n``, and ``best_of_4`` as ``best_of_n`` with n = 4.

    Args:
        name: one of `PROCEDURE_NAMES`.
        **settings: its fields: `n`, or `probabilities` for order_statistic.

    Raises:
        ValueError: on an unknown name or setting, with the nearest right one.

    Example:
        >>> procedure_from_name("best_of_n", n=4) == procedure_from_name("best-of-4")
        True
    """
    name = name.strip().replace("-", "_")
    stem, _, count = name.rpartition("_")
    if stem and count.isdigit():
        name, settings = f"{stem}_n", {**settings, "n": int(count)}
    return _member("procedure", _PROCEDURES, name, settings)


def _member(
    family: str,
    members: Mapping[str, Callable[..., Member]],
    name: str,
    settings: Mapping[str, Any],
) -> Member:
    if name not in members:
        raise ValueError(f"Unknown {family} {name!r}.{_nearest(name, list(members))}")
    make = members[name]
    parameters = inspect.signature(make).parameters
    for setting in settings:
        if setting not in parameters:
            known = _nearest(setting, list(parameters)) if parameters else " It takes no settings."
            raise ValueError(f"Unknown setting {setting!r} of {family} {name!r}.{known}")
    needed = [
        p.name for p in parameters.values() if p.default is p.empty and p.name not in settings
    ]
    if needed:
        raise ValueError(f"The {family} {name!r} needs {' and '.join(needed)}; give a value.")
    return make(**settings)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(known)}."
