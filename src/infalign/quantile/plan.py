"""Plan: what each transform would win at a procedure and KL, before anything is trained.

All transforms are compared at equal KL, since β is not comparable across them. Beside the win rate
after decoding stands the ordinary one, without any procedure: what the choice costs a user who
samples only once.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import Identity, RankProcedure
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Log, Transform
from infalign.quantile.transforms import Identity as IdentityTransform
from infalign.quantile.win_rate import reference_win_rate, win_rate

__all__ = ["PlanRow", "plan"]


@final
@dataclasses.dataclass(frozen=True)
class PlanRow:
    """What one transform would win."""

    transform: str
    """Its name."""
    beta: float
    """KL coefficient to train it with to end at the planned KL."""
    kl: float
    """KL from the reference. Nats; the same in every row."""
    standard_win_rate: float
    """Against the reference, one response each. [0,1]."""
    decoded_win_rate: float
    """Against the reference, both decoded by the procedure. [0,1]."""
    fraction_of_limit: float
    """(W − W₀)/(W* − W₀): share of the largest possible gain at this KL. 1 for optimal."""


def plan(
    procedure: RankProcedure,
    kl: float,
    *,
    transforms: Sequence[Transform] | None = None,
    reference_procedure: RankProcedure | None = None,
) -> list[PlanRow]:
    """Predicted win rates of each transform, tilted to the same KL; the optimal one comes last.

    Args:
        procedure: how the aligned policy will be decoded.
        kl: KL from the reference, nats, > 0.
        transforms: what to compare; identity, log, exp(10) and exp(−10) where None.
        reference_procedure: how the reference is decoded; the same where None.

    Raises:
        ValueError: if the KL is not positive or out of reach.

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
    best = optimal_transform(procedure, kl=kl, reference_procedure=reference_procedure)
    start = reference_win_rate(procedure, reference_procedure)
    if transforms is None:
        transforms = (IdentityTransform(), Log(), Exponential(10.0), Exponential(-10.0))

    def row(transform: Transform) -> PlanRow:
        policy = TiltedPolicy(transform, beta_for_kl(transform, kl))
        decoded = win_rate(policy, procedure, reference_procedure)
        fraction = (decoded - start) / (best.win_rate - start)
        return PlanRow(
            transform.name, policy.beta, kl, win_rate(policy, Identity()), decoded, fraction
        )

    last = TiltedPolicy(best, best.beta)
    rows = [row(transform) for transform in transforms]
    return [
        *rows,
        PlanRow(best.name, best.beta, kl, win_rate(last, Identity()), best.win_rate, 1.0),
    ]
