"""Every member of every family: one line here admits a member to all laws of its family."""

from collections.abc import Callable

import numpy as np

from infalign.quantile import procedures, transforms
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.optimal import Optimal, optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    OrderStatistic,
    RankProcedure,
    WorstOfN,
    median_of,
)
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.transforms import Exponential, Log, Transform

CALIBRATIONS: dict[str, Callable[[tuple[str, ...], np.ndarray], Calibration]] = {
    "empirical": EmpiricalCalibration,
}
"""Made from prompt ids and the rewards of K reference rollouts."""

PROCEDURES: tuple[RankProcedure, ...] = (
    procedures.Identity(),
    BestOfN(1),
    BestOfN(2),
    BestOfN(4),
    BestOfN(16),
    WorstOfN(2),
    WorstOfN(5),
    median_of(4),
    median_of(5),
    OrderStatistic((0.2, 0.3, 0.5)),
    OrderStatistic((0.0, 0.0, 1.0, 0.0)),
)

TRANSFORMS: tuple[Transform, ...] = (
    transforms.Identity(),
    Log(),
    Exponential(0.5),
    Exponential(10.0),
    Exponential(-10.0),
    optimal_transform(BestOfN(4), kl=0.5),
    optimal_transform(BestOfN(16), kl=0.5),
    optimal_transform(WorstOfN(4), kl=0.5),
    optimal_transform(median_of(3), kl=0.2),
)

POLICIES: tuple[TiltedPolicy, ...] = (
    TiltedPolicy(transforms.Identity(), 0.25),
    TiltedPolicy(Log(), 1 / 3),
    TiltedPolicy(Exponential(10.0), 0.1),
    TiltedPolicy(Exponential(-10.0), 0.3),
    *(TiltedPolicy(t, t.beta) for t in TRANSFORMS if isinstance(t, Optimal)),
)


def named(member: object) -> str:
    """What a test's id shows."""
    if isinstance(member, TiltedPolicy):
        return f"{member.name}@{member.beta:.3g}"
    return str(getattr(member, "name", member))
