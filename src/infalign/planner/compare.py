"""Compare: what each transform would win at a procedure and KL, and which wins most.

All transforms are compared at equal KL, since β is not comparable across them. Beside the win rate
after decoding stands the ordinary one, without any procedure: what the choice costs a user who
samples only once. With an agreement below 1 the answers are judged by another reward, the gold
one, than the one that selects and trains.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import final

from infalign.planner.judging import judged_by, reason_of, refuse_agreement
from infalign.planner.limit import best_policy
from infalign.quantile.procedures import Identity, Procedure
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Log, Transform
from infalign.quantile.transforms import Identity as IdentityTransform
from infalign.quantile.win_rate import averaged_over, frontier, win_rate

__all__ = ["PlanRow", "plan"]


@final
@dataclasses.dataclass(frozen=True)
class PlanRow:
    """What one transform would win."""

    transform: str
    """Its name; "optimal for gold" where the judge is another reward and it is solved for that."""
    beta: float
    """KL coefficient to train it with to end at the planned KL."""
    kl: float
    """KL from the reference. Nats; the same in every row."""
    standard_win_rate: float
    """Against the reference, one response each. [0,1]."""
    decoded_win_rate: float
    """Against the reference, both decoded by the procedure. [0,1]."""
    fraction_of_limit: float
    """(W − W₀)/(W* − W₀): share of the largest possible gain at this KL. 1 for optimal. By the
    gold reward where that judges; NaN where nothing can be gained."""
    gold_win_rate: float
    """Decoded, judged by the gold reward; the same as `decoded_win_rate` at agreement 1. [0,1]."""
    unsolved: str | None = None
    """Why the optimum was not found; all numbers but the KL are then NaN."""


def plan(
    procedure: Procedure,
    kl: float,
    *,
    transforms: Sequence[Transform] | None = None,
    reference_procedure: Procedure | None = None,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> list[PlanRow]:
    """Predicted win rates of each transform, tilted to the same KL; the optimal one comes last.

    With an agreement below 1 there are two optima: "optimal" wins most by the selecting reward,
    "optimal for gold" by the judging one, and it is the limit.

    Args:
        procedure: how the aligned policy will be decoded.
        kl: KL from the reference, nats, > 0.
        transforms: what to compare; identity, log, exp(10) and exp(−10) where None.
        reference_procedure: how the reference is decoded; the same where None.
        agreement: Spearman ρ between the selecting reward's quantiles and the judging one's.
        ties: where the selecting reward is equal; transforms count by their means there. With two
            values, pass or fail, all end at one policy; β of "optimal" is then that of identity.

    Raises:
        ValueError: if the KL is not positive or out of reach, as beyond −log of the mass of a tie
            at the top; if ρ is not in [−1,1].

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> for row in plan(BestOfN(4), kl=0.5):
        ...     print(f"{row.transform:9} {row.standard_win_rate:.3f} {row.decoded_win_rate:.3f}")
        identity  0.774 0.800
        log       0.768 0.768
        exp(10)   0.712 0.872
        exp(-10)  0.736 0.686
        optimal   0.702 0.873
    """
    refuse_agreement(agreement)
    ties.refuse_kl(kl)
    if transforms is None:
        transforms = (IdentityTransform(), Log(), Exponential(10.0), Exponential(-10.0))
    seen = [(one.name, averaged_over(ties, one)) for one in transforms]
    policies = [(name, TiltedPolicy(one, beta_for_kl(one, kl))) for name, one in seen]
    rhos = {"optimal": 1.0}
    if 0 < agreement < 1:  # a judge of no or the opposite opinion is pleased by no training
        rhos["optimal for gold"] = agreement
    unsolved: dict[str, str] = {}
    for name, rho in rhos.items():
        try:
            policies.append((name, best_policy(procedure, kl, reference_procedure, rho, ties)))
        except ArithmeticError as error:
            unsolved[name] = reason_of(error)
    judge, limit = judged_by(agreement, ties), list(rhos)[-1]
    start = float(frontier(procedure, [0.0], "optimal", reference_procedure, **judge)[0])
    rates = {n: win_rate(one, procedure, reference_procedure, **judge) for n, one in policies}
    gain = rates[limit] - start if limit in rates and agreement > 0 else 0.0

    def row(name: str, policy: TiltedPolicy) -> PlanRow:
        decoded = wins = rates[name]
        if agreement != 1:
            decoded = win_rate(policy, procedure, reference_procedure, ties=ties)
        share = (wins - start) / gain if gain > 0 else math.nan
        single = win_rate(policy, Identity(), ties=ties)
        return PlanRow(name, policy.beta, kl, single, decoded, share, wins)

    no = math.nan
    rows = [row(*pair) for pair in policies]
    return rows + [PlanRow(name, no, kl, no, no, no, no, why) for name, why in unsolved.items()]
