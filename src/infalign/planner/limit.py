"""The limit: the policy that wins most at a KL, whatever is tied.

Where the reward has two values, pass or fail, a law is one number, the chance to pass. Every
increasing transform tilted to a KL ends there, and for a procedure that picks by rank that one is
optimal: nothing needs to be solved.
"""

from infalign.planner.judging import judged_by
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import Procedure, RankProcedure
from infalign.quantile.ties import Ties
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.transforms import Identity, Transform

__all__ = ["best_policy", "known_transform"]


def known_transform(
    transform: Transform | str, procedure: Procedure, ties: Ties
) -> Transform | str:
    """The transform; for "optimal" one that is so by a reward of two values.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> known_transform("optimal", BestOfN(4), Ties.pass_fail(0.3)).name
        'identity'
        >>> known_transform("optimal", BestOfN(4), Ties())
        'optimal'
    """
    is_ranked = isinstance(procedure, RankProcedure)
    if transform == "optimal" and is_ranked and ties.has_two_values:
        return Identity()
    return transform


def best_policy(
    procedure: Procedure,
    kl: float,
    reference_procedure: Procedure | None,
    agreement: float,
    ties: Ties,
) -> TiltedPolicy:
    """The policy that wins most at this KL."""
    judge = judged_by(agreement, ties)
    best = optimal_transform(procedure, kl=kl, reference_procedure=reference_procedure, **judge)
    return TiltedPolicy(best, best.beta)
