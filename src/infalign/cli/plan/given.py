"""What was given on the command line, as the questions need it."""

import math
from typing import TYPE_CHECKING, Any

from infalign.cli.console import Terminal
from infalign.cli.plan.asked import (
    asked_procedure_and_kls,
    asked_procedures,
    refuse_kl,
    refuse_untold,
)
from infalign.cli.plan.own import is_own, own_procedure

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.ties import Ties

__all__ = [
    "agreement_of_question",
    "one_kl",
    "procedure_and_kl",
    "procedure_and_kls",
    "procedures_of_question",
    "reference_of_question",
    "refuse_points",
    "said_ties",
    "ties_of_question",
]

Given = dict[str, Any]
"""Options by name, those that were given."""
USUAL = "1,2,4,8,16"
"""Numbers of candidates that are compared."""


def agreement_of_question(given: Given, *, must: bool = False) -> float:
    """ρ as given, or as estimated from scores; 1 where neither is."""
    if "scores" in given:
        from infalign.cli.plan.scores import agreement_of

        found = agreement_of(given["scores"], given.get("score_columns"))
        Terminal().say(
            f"agreement ρ = {found.value:.3f} (95 %: {found.low:.3f} to {found.high:.3f}, "
            f"{found.prompts} prompts"
            + (f", {found.excluded} left out as all tied)" if found.excluded else ")")
        )
        return found.value
    if must and "agreement" not in given:
        raise ValueError(
            "--gold needs how far the two rewards agree: --agreement 0.6, or --scores PATH to "
            "estimate it from stored scores of both."
        )
    from infalign.planner.judging import refuse_agreement

    refuse_agreement(given.get("agreement", 1.0))
    return given.get("agreement", 1.0)


def one_kl(given: Given) -> float:
    """The KL, where there can be only one."""
    kls = list(dict.fromkeys(given.get("kl", [1.0])))
    if len(kls) > 1:
        raise ValueError(f"{len(kls)} values of --kl came; this question takes one.")
    refuse_kl(kls[0])
    return kls[0]


def procedure_and_kl(given: Given) -> "tuple[Procedure, float]":
    """The procedure and the one KL."""
    if "kl" in given:
        one_kl(given)
    chosen, kls = procedure_and_kls(given)
    return chosen, kls[0]


def procedure_and_kls(given: Given) -> Any:
    """The procedure and the KLs."""
    names = given.get("procedure", [])
    probabilities, kls = given.get("probabilities"), given.get("kl", [])
    return asked_procedure_and_kls(given.get("file"), names, given.get("n"), probabilities, kls)


def procedures_of_question(given: Given) -> "list[Procedure]":
    """Several procedures."""
    _refuse_file(given)
    names = given.get("procedure", [])
    return asked_procedures(names, given.get("n"), None, given.get("ns"), USUAL)


def _refuse_file(given: Given) -> None:
    if "file" in given:
        raise ValueError(
            f"{given['file']}: an experiment has one procedure, and several are compared here. "
            "Leave the file out."
        )


def reference_of_question(given: Given, usual: str | None = None) -> "Procedure | None":
    """How the reference is decoded; None: as the policy."""
    from infalign.quantile.names import procedure_from_name

    name = given.get("reference", usual)
    if name is not None and is_own(name):
        return own_procedure(name, "--reference")
    if name is None:
        return None
    refuse_untold(name, "--reference")
    if not name.strip().lower().replace("-", "_").endswith("_of_n"):
        return procedure_from_name(name)
    if "n" not in given:
        raise ValueError(
            f"--reference {name}: say how many candidates, as in --reference best_of_4, or by --n."
        )
    return procedure_from_name(name, n=given["n"])


def refuse_points(option: str, points: float, least: float = 0.0) -> None:
    """Raise ValueError unless points of win rate lie in (0, 100), and not below the least."""
    if 0 < points < least:
        raise ValueError(
            f"{option} {points:g}: at least {least:g} points are needed; a smaller difference is "
            "lost in rounding, and no number of prompts is worth it."
        )
    if not (0 < points < 100 and math.isfinite(points)):
        raise ValueError(
            f"{option} {points:g}: points of win rate between 0 and 100 are needed; 2 is a win "
            "rate of 0.02."
        )


def ties_of_question(given: Given) -> "Ties":
    """Where the reward is equal: of a pass rate, or of intervals as they came."""
    from infalign.quantile.ties import Ties

    if "pass_rate" in given and "tie" in given:
        raise ValueError("--pass-rate and --tie both came; --pass-rate ties all answers. Give one.")
    if "pass_rate" in given:
        return Ties.pass_fail(given["pass_rate"])
    return Ties(tuple(sorted(map(_interval, given.get("tie", ())))))


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise ValueError(
            f"--tie {text}: two quantiles are needed, as in --tie 0:0.4 where the worst 40 % of "
            "answers have one reward."
        ) from None
    return low, high


def said_ties(ties: "Ties") -> list[str]:
    """A note, where there are any."""
    if not ties:
        return []
    parts = ", ".join(f"{a:g} to {b:g}" for a, b in ties.intervals)
    return [f"Tied quantiles, with one reward each: {parts}; a tie counts half."]
