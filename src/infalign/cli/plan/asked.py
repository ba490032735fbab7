"""What was asked for: procedures, transforms, KLs and lists of numbers from words."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infalign.cli.changes import experiment_from
from infalign.cli.plan.own import is_own, own_procedure, own_transform

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.transforms import Transform

__all__ = [
    "asked_procedure_and_kls",
    "asked_procedures",
    "asked_transform",
    "asked_transforms",
    "counts",
    "refuse_kl",
    "refuse_untold",
]

LARGEST_KL = 8.0
"""Nats; beyond it an aligned policy gives only what the reference says once in three thousand."""


def asked_procedure_and_kls(
    file: Path | None,
    names: Sequence[str],
    n: int | None,
    probabilities: str | None,
    kls: Sequence[float],
) -> "tuple[Procedure, Sequence[float]]":
    """The procedure and KLs of the command line, and what it leaves open from the file."""
    names, kls = list(dict.fromkeys(names)), list(dict.fromkeys(kls))
    if len(names) > 1:
        raise ValueError(
            f"{len(names)} procedures came; several are compared by --mismatch or "
            "--target-win-rate. Leave all but one out, or add one of these."
        )
    experiment = None if file is None else experiment_from(file)
    if experiment is not None and not (names or n or probabilities):
        from infalign.quantile.names import procedure_from_name

        refuse_untold(experiment.procedure.kind, f"{file}: procedure")
        chosen = procedure_from_name(experiment.procedure.kind, **_settings(experiment.procedure))
    else:
        chosen = _procedure(names[0] if names else "best_of_n", n, probabilities)
    if experiment is not None and not kls:
        kls = [_planned_kl(experiment, chosen)]
    for kl in kls:
        refuse_kl(kl)
    return chosen, kls or [1.0]


def asked_procedures(
    names: Sequence[str], n: int | None, probabilities: str | None, ns: str | None, usual: str
) -> "list[Procedure]":
    """Several procedures: those named, or one kind with each number of --ns."""
    names = list(dict.fromkeys(names))
    if ns is None and (len(names) > 1 or (len(names) == 1 and not _has_n(names[0]))):
        return [_procedure(name, n if _has_n(name) else None, probabilities) for name in names]
    if len(names) > 1 or (names and not _has_n(names[0])):
        raise ValueError(
            f"--ns {ns} came with --procedure {' '.join(names)}; give the numbers of one kind "
            "(--procedure worst_of_n --ns 1,4), or several whole procedures and no --ns."
        )
    if n is not None:
        raise ValueError(f"--n {n}: several numbers are compared here; give them as --ns 1,2,4.")
    kind = names[0] if names else "best_of_n"
    return [_procedure(kind, one, None) for one in counts("--ns", usual if ns is None else ns, 1)]


def refuse_untold(name: str, where: str) -> None:
    """Raise ValueError where it is a procedure on text of which there is no theory.

    Args:
        name: of a procedure, with or without settings.
        where: it was named.
    """
    from infalign.quantile.names import PROCEDURE_NAMES

    called = name.strip().lower().partition("(")[0].replace("-", "_")
    kind = re.sub(r"_\d+", "_n", called)
    if kind in PROCEDURE_NAMES:
        return
    from infalign.decoding.names import TEXT_PROCEDURE_NAMES

    if not {called, kind, kind.removesuffix("_n")}.isdisjoint(TEXT_PROCEDURE_NAMES):
        raise ValueError(
            f"{where} {name}: the ranks of whole responses do not tell what it wins, so no win "
            "rate, KL or transform can be planned for it. Train for it and measure (`procedure` "
            "and `training: {kind: online_decoded}` in an experiment), or plan for one that ranks "
            "tell, such as --procedure best_of_4."
        )


def _has_n(name: str) -> bool:
    return name.strip().replace("-", "_").endswith("_n")


def counts(option: str, text: str, least: int) -> list[int]:
    """Integers separated by commas, each once."""
    try:
        found = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(
            f"{option} {text}: integers separated by commas are needed, as in {option} 4,8,16."
        ) from None
    small = next((one for one in found if one < least), None)
    if small is not None:
        raise ValueError(f"{option} {text}: {small} is too small; at least {least} is needed.")
    return found


def refuse_kl(kl: float) -> None:
    """Raise ValueError on a KL that is not planned for."""
    if not 0 < kl <= LARGEST_KL:
        raise ValueError(
            f"--kl {kl:g}: a KL between 0 and {LARGEST_KL:g} nats is needed; beyond, the "
            "policy would say only what the reference says once in three thousand times."
        )


def _procedure(name: str, n: int | None, probabilities: str | None) -> "Procedure":
    from infalign.quantile.names import procedure_from_name

    if is_own(name):
        if n is not None:
            raise ValueError(f"--procedure {name} has its settings; leave out --n {n}.")
        return own_procedure(name)
    refuse_untold(name, "--procedure")
    called, bracket, inside = name.strip().partition("(")
    plain = called.replace("-", "_") + bracket + inside  # in brackets a minus is a minus
    settings: dict[str, Any] = {}
    if probabilities is not None:
        settings["probabilities"] = _numbers(probabilities)
    if n is not None and n < 1:
        raise ValueError(f"--n {n}: the number of responses per answer is at least 1.")
    if "(" in plain:
        if n is not None:
            raise ValueError(f"--procedure {name} has its settings; leave out --n {n}.")
    elif plain.rpartition("_")[2].isdigit():
        if n is not None:
            raise ValueError(f"--procedure {name} says how many responses; leave out --n {n}.")
    elif plain.endswith("_of_n") or n is not None:
        settings["n"] = 4 if n is None else n
    return procedure_from_name(plain, **settings)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--probabilities {text}: numbers separated by commas are needed, one for each rank, "
            "worst first, as in 0,0,1,0."
        ) from None


def asked_transforms(names: Sequence[str]) -> "list[Transform | None]":
    """The transforms of names, each once; None is `optimal`."""
    found: list[Transform | None] = []
    for one in map(asked_transform, names):
        if one not in found:
            found.append(one)
    return found


def asked_transform(name: str) -> "Transform | None":
    """The transform of a name such as `log` or `exp(-5)`; None for `optimal`, always there."""
    from infalign.quantile.names import transform_from_name

    plain = name.strip()
    if is_own(plain):
        return own_transform(plain)
    if plain == "optimal":
        return None
    if plain in ("exp", "exponential"):
        return transform_from_name("exponential", t=10.0)
    steep = re.match(r"exp(?:onential)?\s*(?:[:=]|(\())", plain)
    if steep is None:
        return transform_from_name(plain)
    inside, end = plain[steep.end() :], ")" if steep[1] else ""
    try:
        t = float(inside.removesuffix(end))
        if not inside.endswith(end):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--transform {name}: one number in brackets is needed, as in exp(5) or exp(-10)."
        ) from None
    return transform_from_name("exponential", t=t)


def _planned_kl(experiment: Any, procedure: "Procedure") -> float:
    """The KL the experiment trains to; where it gives β, the KL its transform has there."""
    training = experiment.training
    if training.kl is not None:
        return training.kl
    from infalign.quantile.names import transform_from_name
    from infalign.quantile.tilting import TiltedPolicy

    settings = _settings(experiment.transform)
    if experiment.transform.kind == "optimal":
        settings = {"procedure": procedure, "beta": training.beta}
    transform = transform_from_name(experiment.transform.kind, **settings)
    return TiltedPolicy(transform, training.beta).kl


def _settings(section: Any) -> dict[str, Any]:
    """What a section of the file says beside its kind."""
    return {name: value for name, value in vars(section).items() if name != "kind"}
