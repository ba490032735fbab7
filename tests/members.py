"""Every member of every family: one line here admits a member to all laws of its family."""

from collections.abc import Callable

import numpy as np

from infalign.quantile import procedures, transforms
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.optimal import Optimal, optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    MetropolisHastings,
    OrderStatistic,
    Procedure,
    RandomCount,
    RankProcedure,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_geometric,
    best_of_poisson,
    median_of,
)
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.transforms import Custom, Exponential, Log, Transform

CALIBRATIONS: dict[str, Callable[[tuple[str, ...], np.ndarray], Calibration]] = {
    "empirical": EmpiricalCalibration,
}
"""Made from prompt ids and the rewards of K reference rollouts."""

RANK_PROCEDURES: tuple[RankProcedure, ...] = (
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
    RandomCount((0.3, 0.0, 0.5, 0.2), "worst"),
    RandomCount((0.0, 0.5, 0.5), "median"),
    best_of_poisson(3.0),
    best_of_geometric(2.0),
)

QUANTILE_PROCEDURES: tuple[Procedure, ...] = (
    RewindAndRepeat(0.7, 1),
    RewindAndRepeat(0.5, 4),
    RewindAndRepeat(0.9, 16),
    SoftBestOfN(1, 0.1),
    SoftBestOfN(4, 0.1),
    SoftBestOfN(16, 0.02),
    SoftBestOfN(4, 3.0),
    MetropolisHastings(0),
    MetropolisHastings(4),
    MetropolisHastings(16, beta=1 / 15),
    MetropolisHastings(3, Exponential(5.0), 0.2),
)

PROCEDURES: tuple[Procedure, ...] = RANK_PROCEDURES + QUANTILE_PROCEDURES

TRANSFORMS: tuple[Transform, ...] = (
    transforms.Identity(),
    Log(),
    Exponential(0.5),
    Exponential(10.0),
    Exponential(-10.0),
    Custom(lambda u: u**3, "cubed"),
    Custom(lambda u: u + (u >= 0.4), "step", jumps=(0.4,)),
    optimal_transform(BestOfN(4), kl=0.5),
    optimal_transform(BestOfN(16), kl=0.5),
    optimal_transform(WorstOfN(4), kl=0.5),
    optimal_transform(median_of(3), kl=0.2),
    optimal_transform(SoftBestOfN(4, 0.1), kl=0.5),
    optimal_transform(BestOfN(4), kl=0.5, agreement=0.5),
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
