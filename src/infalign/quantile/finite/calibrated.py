"""Finite K: what calibrating with K rollouts, and no more, leaves of a win rate.

With K reference rewards only the rank of a response is known, so the policy that training converges
to has a density that is constant between neighbouring reference quantiles, and on every tie. For
one draw of those quantiles everything is a finite sum; the expectation is over the draw. The draws
are the same on every call and every machine, so that predictions can be compared digit by digit.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from infalign.quantile.finite.contest import Chosen, Contest
from infalign.quantile.finite.worlds import Worlds
from infalign.quantile.procedures import Procedure, RankProcedure
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.transforms import Transform

__all__ = [
    "finite_estimate",
    "finite_frontier",
    "finite_win_rate",
    "largest_kl",
    "rollouts_enough",
]

MOST_ROLLOUTS = 65_536
"""`rollouts_enough` searches no further."""


def largest_kl(k: int) -> float:
    """Σ_{i≤k} 1/i: the KL of putting all mass above the best of K calibration rollouts. Nats.

    No training on K rollouts can aim further; −log of the top gap, Beta(1, K), has this mean.

    Example:
        >>> round(largest_kl(64), 3)
        4.744
    """
    return float(np.sum(1 / np.arange(1, k + 1)))


def finite_win_rate(
    transform: Transform,
    procedure: Procedure,
    k: int,
    kl: float,
    *,
    agreement: float = 1.0,
    reference_procedure: Procedure | None = None,
    ties: Ties = NO_TIES,
    draws: int | None = None,
    rng: np.random.Generator | None = None,
) -> float:
    """Win rate after decoding of the tilt that K calibration rollouts allow, at a given true KL.

    The density on the r-th gap between the K sorted reference quantiles is exp(Φ̄_K(r)/β)/Z, with
    Φ̄_K(r) the posterior mean of Φ; on a tie it is the mean of Φ̄_K over the tied ranks that takes
    its place. KL and win rate are those of the true law, averaged over the calibrations.

    For a pass/fail reward (two ties that fill [0,1]) the average is an exact sum over the number
    of rollouts that pass. Otherwise it is taken over `draws` draws of the K quantiles, weighed so
    that their means are exact. :func:`finite_estimate` knows the standard error of that: at the
    default up to 0.0006 in the cases that were tried, K = 16 … 256 and N up to 16.

    Args:
        transform: Φ.
        procedure: decodes the aligned policy.
        k: calibration rollouts per prompt, ≥ 2.
        kl: mean KL from the reference over the calibrations, nats, > 0.
        agreement: ρ in [−1,1], rank correlation of the reward that selects and the one that judges.
        reference_procedure: decodes the reference; the same procedure where None.
        ties: quantiles that share a reward.
        draws: how many calibrations are averaged; where None 8192 for few rollouts, fewer for many.
        rng: makes them; where None they are the portable ones, the same everywhere.

    Raises:
        ValueError: a KL that K rollouts cannot express, or fewer than 2 rollouts.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> from infalign.quantile.transforms import Exponential
        >>> few, many = (finite_win_rate(Exponential(10), BestOfN(4), k, 0.5) for k in (16, 256))
        >>> few < many < 0.8716
        True
        >>> pass_fail = Ties.pass_fail(0.3)
        >>> round(finite_win_rate(Exponential(10), BestOfN(4), 64, 0.5, ties=pass_fail), 4)
        0.6185
    """
    contest = Contest.of(procedure, reference_procedure, agreement, ties)
    return contest.win_rate(_worlds(contest, k, draws, rng), transform, kl)


def finite_estimate(
    transform: Chosen,
    procedure: Procedure,
    k: int,
    kl: float,
    *,
    agreement: float = 1.0,
    reference_procedure: Procedure | None = None,
    ties: Ties = NO_TIES,
    draws: int | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[float, float]:
    """`finite_win_rate`, and the standard error that averaging over draws leaves in it.

    At one β the win rate W and the KL of a draw d make an influence W_d − λ·KL_d, λ = dW/dKL; the
    error is the spread of what a regression on the balanced means leaves of it, over √draws.

    Args:
        transform: Φ, or "optimal" for the one that is best at this KL with perfect calibration.
        procedure: decodes the aligned policy.
        k: calibration rollouts per prompt.
        kl: mean KL from the reference, nats, > 0.
        agreement: ρ in [−1,1], rank correlation of the reward that selects and the one that judges.
        reference_procedure: decodes the reference; the same procedure where None.
        ties: quantiles that share a reward; 0 is the error where they are pass and fail.
        draws: how many calibrations are averaged; where None 8192 for few rollouts, fewer for many.
        rng: makes them; portable ones where None.

    Returns:
        Win rate and standard error.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> from infalign.quantile.transforms import Exponential
        >>> wins, error = finite_estimate(Exponential(10), BestOfN(8), 32, 1.0)
        >>> round(wins, 3), error < 5e-4
        (0.925, True)
    """
    contest = Contest.of(procedure, reference_procedure, agreement, ties)
    return contest.estimate(_worlds(contest, k, draws, rng), contest.chosen(transform, kl), kl)


def finite_frontier(
    transform: Chosen,
    procedure: Procedure,
    k: int,
    kls: Sequence[float],
    *,
    agreement: float = 1.0,
    reference_procedure: Procedure | None = None,
    ties: Ties = NO_TIES,
    draws: int | None = None,
    rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "F"]:
    """`finite_win_rate` at each KL, all from the same calibrations.

    Args:
        transform: Φ, or "optimal" for the one that is best at each KL with perfect calibration.
        procedure: decodes the aligned policy.
        k: calibration rollouts per prompt.
        kls: mean KLs from the reference, nats, > 0.
        agreement: ρ in [−1,1], rank correlation of the reward that selects and the one that judges.
        reference_procedure: decodes the reference; the same procedure where None.
        ties: quantiles that share a reward.
        draws: how many calibrations are averaged; where None 8192 for few rollouts, fewer for many.
        rng: makes them; portable ones where None.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> finite_frontier("optimal", BestOfN(4), 64, [0.5, 1.0]).round(3).tolist()
        [0.859, 0.924]
    """
    contest = Contest.of(procedure, reference_procedure, agreement, ties)
    worlds = _worlds(contest, k, draws, rng)
    rates = [contest.win_rate(worlds, contest.chosen(transform, kl), kl) for kl in map(float, kls)]
    return np.array(rates, dtype=float)


def rollouts_enough(
    transform: Chosen,
    procedure: Procedure,
    kl: float,
    loss: float,
    *,
    agreement: float = 1.0,
    reference_procedure: Procedure | None = None,
    ties: Ties = NO_TIES,
) -> int:
    """The least K whose predicted win rate is within `loss` of perfect calibration's.

    Searched by doubling, then by bisection among eight values of K per octave (all of them up to
    16), each by the win rate that `finite_win_rate` has for it.

    Args:
        transform: Φ, or "optimal" for the best one at this KL.
        procedure: decodes the aligned policy.
        kl: from the reference, nats.
        loss: of win rate that is accepted, > 0; 0.01 is one point.
        agreement: ρ in [−1,1], rank correlation of the reward that selects and the one that judges.
        reference_procedure: decodes the reference; the same procedure where None.
        ties: quantiles that share a reward.

    Raises:
        ValueError: a loss that is not positive, or one that needs more than 65,536 rollouts.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> rollouts_enough("optimal", BestOfN(4), kl=0.5, loss=0.01)
        108
    """
    if not 0 < loss < 1:
        raise ValueError(
            f"A loss of {loss} came; give the win rate you can spare, above 0 and below 1; "
            "no finite number of rollouts is as good as perfect calibration."
        )
    contest = Contest.of(procedure, reference_procedure, agreement, ties)
    phi = contest.chosen(transform, kl)
    needed = contest.perfect(phi, kl) - loss
    grid = _numbers_of_rollouts()

    @lru_cache
    def is_enough(place: int) -> bool:
        k = grid[place]
        worlds = _worlds(contest, k, None, None)
        reached = worlds.largest_kl(phi) * 0.999 > kl
        return reached and contest.win_rate(worlds, phi, kl) >= needed

    high = next((p for p in range(0, len(grid), 8) if is_enough(p)), None)
    if high is None and not is_enough(high := len(grid) - 1):
        raise ValueError(
            f"More than {MOST_ROLLOUTS:,} rollouts per prompt would be needed to come within "
            f"{loss} of {needed + loss:.4f} at {kl} nats; accept a larger loss or a smaller KL."
        )
    low = max(high - 8, -1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return grid[high]


def _worlds(contest: Contest, k: int, draws: int | None, rng: np.random.Generator | None) -> Worlds:
    """The worlds behind every prediction: one number of draws for each K, and balanced."""
    if draws is None:
        # A draw costs K pieces, and few rollouts differ most from one draw to the next.
        draws = max(64, min(2**20 // max(int(k), 1), 400))
        if isinstance(contest.procedure, RankProcedure):
            draws = max(draws, min(2**18 // max(int(k), 1), 8192))
    return Worlds.of(k, contest.opponent.ties, draws, rng, contest.breaks).balanced()


def _numbers_of_rollouts() -> list[int]:
    """2 … 16, then eight per octave."""
    steps = np.rint(2.0 ** np.arange(4 + 1 / 8, np.log2(MOST_ROLLOUTS) + 1e-9, 1 / 8)).astype(int)
    return [*range(2, 17), *steps.tolist()]
