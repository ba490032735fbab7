"""Transforms and procedures by name: what the experiment file and the command line speak."""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    Identity,
    MetropolisHastings,
    OrderStatistic,
    Procedure,
    RandomCount,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_geometric,
    best_of_poisson,
    median_of,
)
from infalign.quantile.transforms import Exponential, Log, Transform
from infalign.quantile.transforms import Identity as IdentityTransform

__all__ = [
    "PROCEDURE_MAKERS",
    "PROCEDURE_NAMES",
    "TRANSFORM_NAMES",
    "member_from_name",
    "member_settings",
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


def _metropolis_hastings(
    steps: int, beta: float | None = None, n: int | None = None
) -> MetropolisHastings:
    """The chain towards the tilt by log at β, or towards best-of-n."""
    if n is not None and (beta is not None or n < 2):
        raise ValueError(
            f"n is {n} and beta is {beta} for metropolis_hastings; give beta, or n ≥ 2 for the "
            "chain that imitates best-of-n (beta = 1/(n − 1))."
        )
    settled = beta if beta is not None else 1 / 3 if n is None else 1 / (n - 1)
    return MetropolisHastings(steps, beta=settled)


_PROCEDURES: dict[str, Callable[..., Procedure]] = {
    "identity": Identity,
    "best_of_n": BestOfN,
    "worst_of_n": WorstOfN,
    "median_of_n": median_of,
    "order_statistic": OrderStatistic,
    "best_of_poisson": best_of_poisson,
    "best_of_geometric": best_of_geometric,
    "random_count": RandomCount,
    "rewind_and_repeat": RewindAndRepeat,
    "soft_best_of_n": SoftBestOfN,
    "metropolis_hastings": _metropolis_hastings,
}
TRANSFORM_NAMES = tuple(_TRANSFORMS)
"""Names `transform_from_name` knows."""
PROCEDURE_MAKERS: Mapping[str, Callable[..., Procedure]] = _PROCEDURES
"""Name → what makes the procedure of its settings."""
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


def procedure_from_name(name: str, **settings: Any) -> Procedure:
    """The procedure of that name, e.g. ``best_of_n`` with n = 4.

    ``best-of-n`` is read as ``best_of_n``, and ``best_of_4`` as ``best_of_n`` with n = 4. Settings
    may stand in brackets, by place or by name: ``rewind_and_repeat(0.9, 8)``,
    ``soft_best_of_4(temperature=0.1)``, ``order_statistic(0, 0, 1)``.

    Args:
        name: one of `PROCEDURE_NAMES`.
        **settings: its fields, such as `n`, `mean`, `probabilities`, `threshold` and `at_most`,
            `temperature`, `steps` and `beta`.

    Raises:
        ValueError: on an unknown name or setting, with the nearest right one.

    Example:
        >>> procedure_from_name("best_of_n", n=4) == procedure_from_name("best-of-4")
        True
        >>> procedure_from_name("rewind-and-repeat(0.9, at_most=8)").name
        'rewind(0.9, 8)'
    """
    return member_from_name("procedure", _PROCEDURES, name, settings)


def member_from_name(
    family: str,
    members: Mapping[str, Callable[..., Member]],
    name: str,
    settings: Mapping[str, Any],
) -> Member:
    """The member of a family, from a name as people write it, settings in brackets or not.

    Args:
        family: what a message calls it.
        members: name → maker; a maker's parameters are the settings.
        name: see :func:`procedure_from_name`.
        settings: given otherwise; those in brackets come on top.

    Raises:
        ValueError: on an unknown name or setting, with the nearest right one.
    """
    name, bracketed = _unbracketed(family, name)
    name, settings = name.strip().lower().replace("-", "_"), dict(settings)
    stem, _, count = name.rpartition("_")
    if stem and count.isdigit():
        name = stem if stem in members else f"{stem}_n"
        settings["n"] = int(count)
    if bracketed and name in members:
        settings = _settled(name, members[name], bracketed, settings)
        _refuse_too_few(name, members[name], settings)
    return _member(family, members, name, settings)


def member_settings(make: Callable[..., Any]) -> list[str]:
    """Settings a user may give a maker; a label is for tables."""
    return _public(inspect.signature(make).parameters)


def _unbracketed(family: str, name: str) -> tuple[str, list[str]]:
    """``best_of_poisson(4)`` → its name, and what stands in the brackets."""
    found = re.fullmatch(r"\s*([^()]*?)\s*(?:\((.*)\))?\s*", name)
    if found is None:
        raise ValueError(
            f"{family.capitalize()} {name!r} came; a name with settings in brackets is read, such "
            "as rewind_and_repeat(0.9, 8)."
        )
    return found[1], [part for part in (found[2] or "").split(",") if part.strip()]


def _settled(
    name: str,
    make: Callable[..., Any],
    bracketed: list[str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Settings in brackets beside those given otherwise."""
    parameters = inspect.signature(make).parameters
    named = [(key.strip(), text) for key, equals, text in map(_parted, bracketed) if equals]
    known = [*settings, *(key for key, _ in named)]
    if repeated := [key for key in dict.fromkeys(known) if known.count(key) > 1]:
        raise ValueError(f"{repeated[0]} came twice for {name}; give it once.")
    free = [p for p in parameters if p not in known]
    places = [part for part in bracketed if "=" not in part]
    if free[:1] == ["probabilities"] and places:
        settings["probabilities"] = tuple(_value(part, name, None) for part in places)
        places = []
    if len(places) > len(free):
        raise ValueError(
            f"{len(places)} settings in brackets came for {name}; it takes "
            f"{', '.join(p for p in free if p != 'label') or 'none'}."
        )
    given = [*zip(free, places, strict=False), *named]
    settings.update((key, _value(text, name, parameters.get(key))) for key, text in given)
    return settings


def _parted(setting: str) -> tuple[str, str, str]:
    """``beta=0.5`` → its name, =, its value; the last two empty where there is no =."""
    return setting.partition("=")


def _refuse_too_few(name: str, make: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Settings by place begin with n; without it the others stand in the wrong places."""
    parameters = inspect.signature(make).parameters
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in settings]
    if missing:
        example = f", or the n in the name: {name[:-1]}4(...)" if name.endswith("_of_n") else ""
        raise ValueError(
            f"{name} takes {' and '.join(_public(parameters))} in brackets, in this order; "
            f"{' and '.join(missing)} did not come. Give all{example}."
        )


def _public(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Settings a user may know; a label is for tables."""
    return [name for name in parameters if name != "label"]


def _value(text: str, name: str, parameter: inspect.Parameter | None) -> float | int | str:
    """A number, or a word where the setting takes words: which, the member itself knows."""
    text = text.strip()
    try:
        return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)
    except ValueError:
        takes = "" if parameter is None else str(parameter.annotation)
        if "str" in takes or "Literal" in takes:
            return text
        raise ValueError(f"{text!r} came as a setting of {name}; a number is needed.") from None


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
            public = _public(parameters)
            known = _nearest(setting, public) if public else " It takes no settings."
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
