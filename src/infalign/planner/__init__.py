"""What will be won, at which price: every question about an alignment run, answered before it.

Each file answers one question, from the arithmetic on [0,1] alone: nothing is sampled or trained.
"""

from infalign.planner.compare import PlanRow, plan

__all__ = ["PlanRow", "plan"]
