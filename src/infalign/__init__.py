"""Train language models for the way they will be decoded.

Calibrate a reward to quantiles under the reference policy, transform them for the inference-time
procedure, align, decode, and measure the win rate after decoding. The names below are arithmetic
on [0,1]; the stages that touch text are modules of their own. Importing this package never imports
torch.
"""

from infalign.planner import PlanRow, plan
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.names import procedure_from_name, transform_from_name
from infalign.quantile.optimal import Optimal, optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    OrderStatistic,
    Procedure,
    RankProcedure,
    WorstOfN,
    median_of,
)
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Log, Transform
from infalign.quantile.win_rate import frontier, win_rate

__all__ = [
    "BestOfN",
    "Calibration",
    "EmpiricalCalibration",
    "Exponential",
    "Log",
    "Optimal",
    "OrderStatistic",
    "PlanRow",
    "Procedure",
    "RankProcedure",
    "TiltedPolicy",
    "Transform",
    "WorstOfN",
    "beta_for_kl",
    "frontier",
    "median_of",
    "optimal_transform",
    "plan",
    "procedure_from_name",
    "transform_from_name",
    "win_rate",
]
