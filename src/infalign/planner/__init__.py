"""What will be won, at which price: every question about an alignment run, answered before it.

Each file answers one question, from the arithmetic on [0,1] alone: nothing is sampled or trained.
"""

from infalign.planner.compare import PlanRow, plan
from infalign.planner.gold import GoldRow, gold_by_kl, gold_by_n, stops_at
from infalign.planner.heatmap import write_heatmap
from infalign.planner.mismatch import Mismatch, mismatch
from infalign.planner.power import PowerRow, detectable, naive_variance, power, prompts_needed
from infalign.planner.robust import Robust, RobustTransform, robust, saddle_point
from infalign.planner.rollouts import RolloutRow, enough_rollouts, rollouts
from infalign.planner.target import LARGEST_KL, Reach, cheapest, least_kl
from infalign.planner.variance import Components, components, difference_components

__all__ = [
    "LARGEST_KL",
    "Components",
    "GoldRow",
    "Mismatch",
    "PlanRow",
    "PowerRow",
    "Reach",
    "Robust",
    "RobustTransform",
    "RolloutRow",
    "cheapest",
    "components",
    "detectable",
    "difference_components",
    "enough_rollouts",
    "gold_by_kl",
    "gold_by_n",
    "least_kl",
    "mismatch",
    "naive_variance",
    "plan",
    "power",
    "prompts_needed",
    "robust",
    "rollouts",
    "saddle_point",
    "stops_at",
    "write_heatmap",
]
