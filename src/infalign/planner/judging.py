"""Judging: whether the reward that selects also judges, and what it ties."""

from typing import Any

import numpy as np

from infalign.quantile.ties import NO_TIES, Ties

__all__ = ["judged_by", "reason_of", "refuse_agreement"]


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
