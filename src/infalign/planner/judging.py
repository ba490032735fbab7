"""Judging: whether the reward that selects also judges, what it ties, what a plan may be asked."""

import math
from typing import Any

import numpy as np

from infalign.quantile.ties import NO_TIES, Ties

__all__ = ["judged_by", "largest_kl_of", "reason_of", "refuse_agreement", "refuse_kl_of_ties"]


def reason_of(error: ArithmeticError) -> str:
    """What could not be solved and why, without advice: the KL may not be the user's to change.

    Example:
        >>> reason_of(ArithmeticError("No law at KL = 7.5 was found. Ask for a smaller KL."))
        'No law at KL = 7.5 was found.'
    """
    return str(error).partition(". ")[0].rstrip(".") + "."


def refuse_agreement(agreement: float) -> None:
    """Raise ValueError unless ρ is in [−1, 1]."""
    if not -1 <= agreement <= 1 or not np.isfinite(agreement):
        raise ValueError(
            f"agreement is {agreement}; it is the Spearman rank correlation ρ between the "
            "selecting reward and the judging one, a number from -1 to 1. 1 is the same reward."
        )


def judged_by(agreement: float, ties: Ties = NO_TIES) -> dict[str, Any]:
    """Keyword arguments for the quantile core: empty where the selecting reward judges too."""
    judge: dict[str, Any] = {} if agreement == 1 else {"agreement": agreement}
    return {**judge, "ties": ties} if ties else judge


def largest_kl_of(ties: Ties) -> float:
    """−log of the mass of a tie at the top, which no transform passes; infinite without one."""
    if not ties or ties.ends[-1] < 1 or ties.starts[-1] == 0:
        return math.inf
    return -math.log1p(-ties.starts[-1])


def refuse_kl_of_ties(kl: float, ties: Ties) -> None:
    """Raise ValueError on a KL that nothing trained on a reward with these ties can have."""
    if kl >= (largest := largest_kl_of(ties)):
        raise ValueError(
            f"A KL of {kl:g} nats came; the best responses are tied and have probability "
            f"{1 - ties.starts[-1]:.4g}, so less than {largest:.6g} nats can be used. Ask for less."
        )
