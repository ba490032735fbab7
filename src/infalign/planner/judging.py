"""Judging: whether the reward that selects also judges, and what a plan may be asked about it."""

from typing import Any

import numpy as np

__all__ = ["judged_by", "refuse_agreement"]


def refuse_agreement(agreement: float) -> None:
    """Raise ValueError unless ρ is in [−1, 1]."""
    if not -1 <= agreement <= 1 or not np.isfinite(agreement):
        raise ValueError(
            f"agreement is {agreement}; it is the Spearman rank correlation ρ between the "
            "selecting reward and the judging one, a number from -1 to 1. 1 is the same reward."
        )


def judged_by(agreement: float) -> dict[str, Any]:
    """Keyword arguments for the quantile core: empty where the selecting reward judges too."""
    return {} if agreement == 1 else {"agreement": agreement}
