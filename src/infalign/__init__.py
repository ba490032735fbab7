"""Train language models for the way they will be decoded.

Calibrate a reward to quantiles under the reference policy, transform them for the inference-time
procedure, align, decode, and measure the win rate after decoding. The names below are arithmetic
on [0,1]; the stages that touch text are modules of their own. Importing this package imports
nothing heavy: each name is loaded when it is asked for, and none of them loads torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infalign.planner import PlanRow, plan
    from infalign.quantile.calibration import Calibration, EmpiricalCalibration
    from infalign.quantile.names import procedure_from_name, transform_from_name
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
        check_procedure,
        median_of,
    )
    from infalign.quantile.ties import Ties
    from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
    from infalign.quantile.transforms import Custom, Exponential, Log, Transform
    from infalign.quantile.win_rate import frontier, win_rate

__all__ = [
    "BestOfN",
    "Calibration",
    "Custom",
    "EmpiricalCalibration",
    "Exponential",
    "Log",
    "MetropolisHastings",
    "Optimal",
    "OrderStatistic",
    "PlanRow",
    "Procedure",
    "RandomCount",
    "RankProcedure",
    "RewindAndRepeat",
    "SoftBestOfN",
    "Ties",
    "TiltedPolicy",
    "Transform",
    "WorstOfN",
    "best_of_geometric",
    "best_of_poisson",
    "beta_for_kl",
    "check_procedure",
    "frontier",
    "median_of",
    "optimal_transform",
    "plan",
    "procedure_from_name",
    "transform_from_name",
    "win_rate",
]

_ROOMS = {
    "planner": "PlanRow plan",
    "quantile.calibration": "Calibration EmpiricalCalibration",
    "quantile.names": "procedure_from_name transform_from_name",
    "quantile.optimal": "Optimal optimal_transform",
    "quantile.procedures": "BestOfN MetropolisHastings OrderStatistic Procedure RandomCount "
    "RankProcedure RewindAndRepeat SoftBestOfN WorstOfN best_of_geometric best_of_poisson "
    "check_procedure median_of",
    "quantile.ties": "Ties",
    "quantile.tilting": "TiltedPolicy beta_for_kl",
    "quantile.transforms": "Custom Exponential Log Transform",
    "quantile.win_rate": "frontier win_rate",
}
"""Module → the names above that live there."""
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
