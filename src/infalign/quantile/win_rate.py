"""Win rate: aligned policy against reference, both decoded, and its frontier against KL.

W = P(answer of the aligned policy beats the reference's) + ½·P(tie), both sides decoded by a
procedure: W = 1 − ∫₀¹ G(F(u)) g_ref(u) du. A half means no change. The frontier W*(KL) is the
largest win rate any policy can have at that KL; it belongs to the optimal transform.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from infalign.quantile.mesh import FINE, NO_TIES, Mesh
from infalign.quantile.optimal import Optimal, frontier_of_limits
from infalign.quantile.procedures import Procedure, RankProcedure
from infalign.quantile.solvers.objective import Objective
from infalign.quantile.subsets import tie_bounds
from infalign.quantile.ties import Tied, Ties
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Transform

__all__ = [
    "atomic_win_rate",
    "averaged_over",
    "decoded_masses",
    "frontier",
    "reference_win_rate",
    "win_rate",
]


REFINEMENTS = 8
"""Halvings of panels at most."""


def win_rate(
    policy: TiltedPolicy,
    procedure: Procedure,
    reference_procedure: Procedure | None = None,
    *,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> float:
    """W of the tilted policy against the reference, in [0,1].

    W = 1 − ∫ loss dT(F); for rank procedures and one reward 1 − ∫ G(F(u)) g_ref(u) du.

    Args:
        policy: the aligned policy on [0,1]. Its transform is averaged over ties, as in training.
        procedure: decodes the aligned policy.
        reference_procedure: decodes the reference; the same procedure where None.
        agreement: ρ in [−1,1], rank correlation of the reward that selects and the one that judges.
        ties: where the selecting reward is equal.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> from infalign.quantile.transforms import Log
        >>> policy = TiltedPolicy(Log(), beta=1 / 3)
        >>> round(win_rate(policy, BestOfN(7)), 12)
        0.8
        >>> round(win_rate(policy, BestOfN(7), agreement=0.5), 3)  # by a judge who half agrees
        0.606
    """
    reference = reference_procedure or procedure
    is_plain = agreement == 1 and not ties
    if is_plain and isinstance(procedure, RankProcedure) and isinstance(reference, RankProcedure):
        law = policy.transform.law(policy.beta)
        lost = procedure.rank_cdf(policy.cdf(law.nodes)) * reference.rank_density(law.nodes)
        return float(1 - np.sum(law.weights * lost))
    objective = Objective.of(procedure, reference, agreement, ties)
    policy = TiltedPolicy(averaged_over(ties, policy.transform), policy.beta)
    mesh = Mesh.of(FINE, (*objective.breaks, *policy.transform.breaks), ties)
    for _ in range(REFINEMENTS):  # a steep law needs finer panels where it is steep
        density = policy.density_on(mesh)
        decoded = procedure.decoded_density(mesh, density)
        rough = np.maximum(mesh.roughness(density), mesh.roughness(decoded)) > 1e-12
        if not rough.any():
            break
        mesh = mesh.halved(rough)
    return float(objective.win_rate(mesh, policy.density_on(mesh)))


def averaged_over(ties: Ties, transform: Transform) -> Transform:
    """What training sees of a transform where the reward is tied: its mean over each tie."""
    is_flat = isinstance(transform, Tied | Optimal) and transform.ties == ties
    return transform if is_flat or not ties else Tied(transform, ties)


def frontier(
    procedure: Procedure,
    kls: Sequence[float],
    transform: str | Transform = "optimal",
    reference_procedure: Procedure | None = None,
    *,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> Float[np.ndarray, "F"]:
    """Win rate after decoding at each KL: of one transform, or the limit W*(KL) of "optimal".

    A KL of 0 is the reference itself.

    Args:
        procedure: decodes the aligned policy.
        kls: KL from the reference, nats, ≥ 0.
        transform: a transform, or "optimal" for the largest win rate any policy can have.
        reference_procedure: decodes the reference; the same procedure where None.
        agreement: ρ, rank correlation of the reward that selects and the one that judges.
        ties: where the selecting reward is equal.

    Raises:
        ValueError: on a negative KL, or one out of reach.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> from infalign.quantile.transforms import Log
        >>> frontier(BestOfN(4), [0.0, 0.5, 1.0]).round(5).tolist()
        [0.5, 0.87325, 0.94112]
        >>> frontier(BestOfN(4), [0.5, 1.0], Log()).round(5).tolist()
        [0.76822, 0.86311]
    """
    if isinstance(transform, str) and transform != "optimal":
        raise ValueError(
            f"transform is {transform!r}; give a transform object, or 'optimal' for the limit."
        )
    kls = [float(kl) for kl in kls]
    settings = {"agreement": agreement, "ties": ties}
    rates = np.full(len(kls), reference_win_rate(procedure, reference_procedure, **settings))
    ahead = [place for place, kl in enumerate(kls) if kl != 0]
    if isinstance(transform, Transform):
        flat = averaged_over(ties, transform)
        for place in ahead:
            policy = TiltedPolicy(flat, beta_for_kl(flat, kls[place]))
            rates[place] = win_rate(policy, procedure, reference_procedure, **settings)
    else:
        asked = [kls[place] for place in ahead]
        rates[ahead] = frontier_of_limits(procedure, asked, reference_procedure, **settings)
    return rates


def reference_win_rate(
    procedure: Procedure,
    reference_procedure: Procedure | None = None,
    *,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> float:
    """Win rate of the reference decoded by `procedure` against itself decoded by the other one.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> reference_win_rate(BestOfN(4)), round(reference_win_rate(BestOfN(4), BestOfN(1)), 12)
        (0.5, 0.8)
    """
    if reference_procedure is None or reference_procedure == procedure:
        return 0.5
    objective = Objective.of(procedure, reference_procedure, agreement, ties)
    mesh = objective.mesh(FINE)
    return float(objective.win_rate(mesh, np.ones_like(mesh.u)))


def atomic_win_rate(
    policy_masses: Float[np.ndarray, "P C"],
    reference_masses: Float[np.ndarray, "P C"],
    rewards: Float[np.ndarray, "P C"],
    procedure: RankProcedure,
    reference_procedure: RankProcedure | None = None,
) -> Float[np.ndarray, "P"]:
    """Exact win rate, ties half, of two laws on the same C responses to each of P prompts.

    Responses are sorted by reward and equal rewards merged; the decoded mass of a group is the
    increment of G∘F over it.

    Args:
        policy_masses: probabilities of the aligned policy's responses; rows sum to 1.
        reference_masses: the reference's.
        rewards: what the procedure ranks by and the win rate compares; higher is better.
        procedure: decodes the aligned policy.
        reference_procedure: decodes the reference; the same procedure where None.

    Raises:
        ValueError: if the shapes differ or a reward is NaN.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> masses, rewards = np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]])
        >>> atomic_win_rate(np.array([[0.0, 1.0]]), masses, rewards, BestOfN(2)).tolist()
        [0.625]
    """
    if not policy_masses.shape == reference_masses.shape == rewards.shape:
        raise ValueError(
            f"Shapes differ: policy masses {policy_masses.shape}, reference masses "
            f"{reference_masses.shape}, rewards {rewards.shape}; all are prompts × responses."
        )
    if np.isnan(rewards).any():
        row = int(np.argwhere(np.isnan(rewards))[0, 0])
        raise ValueError(f"A reward of prompt {row} is NaN; responses cannot be ranked by it.")
    order = np.argsort(rewards, axis=1, kind="stable")
    decoded, theirs = (
        np.take_along_axis(decoded_masses(masses, rewards, decoder), order, axis=1)
        for masses, decoder in (
            (policy_masses, procedure),
            (reference_masses, reference_procedure or procedure),
        )
    )
    start, end = tie_bounds(np.take_along_axis(rewards, order, axis=1))
    lower = np.concatenate([np.zeros((len(rewards), 1)), np.cumsum(theirs, axis=1)], axis=1)
    below, up_to = (np.take_along_axis(lower, place, axis=1) for place in (start, end))
    return (decoded * (below + up_to) / 2).sum(axis=1)


def decoded_masses(
    masses: Float[np.ndarray, "P A"],
    rewards: Float[np.ndarray, "P A"],
    procedure: RankProcedure,
) -> Float[np.ndarray, "P A"]:
    """Probability that each atom is the one answered: increments of G∘F, ties by mass.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> law, rewards = np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]])
        >>> decoded_masses(law, rewards, BestOfN(2)).tolist()
        [[0.25, 0.75]]
    """
    order = np.argsort(rewards, axis=1, kind="stable")
    start, end = tie_bounds(np.take_along_axis(rewards, order, 1))
    sorted_weights = np.take_along_axis(masses, order, 1)
    cdf = np.concatenate([np.zeros((len(rewards), 1)), np.cumsum(sorted_weights, axis=1)], axis=1)
    cdf = np.minimum(cdf / cdf[:, -1:], 1.0)
    low, high = np.take_along_axis(cdf, start, 1), np.take_along_axis(cdf, end, 1)
    answered = procedure.rank_cdf(high) - procedure.rank_cdf(low)
    # A group without mass is never answered; 0/0 there means 0.
    share = np.divide(sorted_weights, high - low, out=np.zeros_like(low), where=high > low)
    decoded = np.empty_like(masses)
    np.put_along_axis(decoded, order, answered * share, 1)
    return decoded
