"""The ideal: what exact alignment of the stored rollouts would win, without training anything.

The tilted policy π_ref·exp(Φ/β)/Z is known on the rollouts themselves: each carries the weight
exp(Φ/β)/Z. So the gain a transform can bring on *this* reward and *this* reference is measured in
seconds. Two rules keep it honest. Cross-fitting: half A of a prompt's rollouts is calibrated and
tilted, half B, which calibrated nothing, is the reference it is judged against; then they swap.
Equal KL: each transform gets the β (one for all prompts) at which the tilt of A has the same KL.

Bias. A tilt lives on the K/2 atoms of A. A best-of-N of few atoms varies with them, and the win
rate is concave in that law, so the plug-in is biased low by O(N²/K): 3 points at best-of-4, KL 1
and 64 atoms, 7 at 32 (all transforms alike). Leaving out one group of atoms at a time shows how
the estimate depends on their number, and extrapolating to many (the grouped jackknife) removes
four fifths to nine tenths of it at about 10 % more standard error. What remains is O(1/K²) (below
0.4 points from 64 atoms on, +0.8 for steep Φ at 48), and raw rewards with heavy tails at high KL,
whose tilt depends on extremes that few samples do not show (1 to 2 points, either sign).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from infalign.evaluation.estimates import Estimate, estimate, paired_difference, refuse_unscored
from infalign.evaluation.win_rates import compare, picks
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Transform
from infalign.quantile.win_rate import decoded_masses

__all__ = ["Ideal", "ideal_table"]


@dataclasses.dataclass(frozen=True)
class Ideal:
    """What one transform would win, decoded by one procedure."""

    name: str
    """The transform's name; `raw` is ordinary RLHF on the reward itself."""
    procedure: str
    """How both sides are decoded."""
    kl: float
    """KL of the tilted rollouts, mean over prompts. Nats."""
    beta: float
    """Mean over the splits of the β that gives this KL; comparable within a transform only."""
    win_rate: Estimate
    """Against the reference, judged by the judge if there is one."""
    gain: Estimate | None
    """Paired difference to `raw`; None for raw itself."""
    per_prompt: Float[np.ndarray, "P"]
    """Win rate of each prompt."""


def ideal_table(
    rewards: Float[np.ndarray, "P K"],
    transforms: Sequence[Transform],
    procedures: Sequence[RankProcedure],
    kl: float,
    *,
    judged: Float[np.ndarray, "P K"] | None = None,
    splits: int = 4,
    groups: int = 4,
    rng: np.random.Generator,
) -> list[Ideal]:
    """Cross-fitted win rates of the exact tilt of stored rollouts: raw first, then each transform.

    Args:
        rewards: Training rewards' reward of K reference rollouts to each of P prompts.
        transforms: Φ of each row after `raw`.
        procedures: Decode both sides; one row each.
        kl: Mean over prompts, nats, the same for every row.
        judged: Another reward of the same rollouts, to judge what the procedure picked by
            `rewards`; None: the reward judges itself.
        splits: Random halvings that are averaged.
        groups: Jackknife groups of atoms that correct the finite-K bias; 0: plain plug-in.
        rng: Halves the rollouts.

    Raises:
        ValueError: Too few rollouts for the procedures, or a KL that so few atoms cannot carry.
    """
    judged = rewards if judged is None else judged
    refuse_unscored({"rewards": rewards, "judged": judged})
    _refuse_few(rewards.shape[1], procedures, groups)
    folds = _folds(rewards.shape[1], splits, rng)
    rows, raw = [], {}
    for transform in [None, *transforms]:
        per_fold = [
            _fold(rewards[:, a], judged[:, a], rewards[:, b], judged[:, b], transform,
                  procedures, kl, groups)
            for a, b in folds
        ]  # fmt: skip
        beta = float(np.mean([beta for beta, _ in per_fold]))
        wins = np.mean([wins for _, wins in per_fold], axis=0)
        for procedure, per_prompt in zip(procedures, wins, strict=True):
            base = raw.setdefault(procedure.name, per_prompt)
            gain = None if transform is None else paired_difference(per_prompt, base)
            name = "raw" if transform is None else transform.name
            win = estimate(per_prompt)
            rows.append(Ideal(name, procedure.name, kl, beta, win, gain, per_prompt))
    return rows


def _folds(k: int, splits: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """(A, B) column pairs: each halving both ways round."""
    folds = []
    for _ in range(splits):
        order = rng.permutation(k)
        a, b = order[: k // 2], order[k // 2 :]
        folds += [(a, b), (b, a)]
    return folds


def _fold(
    rewards: Float[np.ndarray, "P A"],
    judged: Float[np.ndarray, "P A"],
    other_rewards: Float[np.ndarray, "P B"],
    other_judged: Float[np.ndarray, "P B"],
    transform: Transform | None,
    procedures: Sequence[RankProcedure],
    kl: float,
    groups: int,
) -> tuple[float, Float[np.ndarray, "R P"]]:
    """β, and the win rate of the tilt of one half against the other, per procedure and prompt."""
    references = [picks(other_rewards, procedure) for procedure in procedures]

    def measure(columns: np.ndarray) -> tuple[float, np.ndarray]:
        weights, beta = _tilt(rewards[:, columns], transform, kl)
        wins = [
            compare(
                judged[:, columns],
                decoded_masses(weights, rewards[:, columns], procedure),
                other_judged,
                reference,
            )
            for procedure, reference in zip(procedures, references, strict=True)
        ]
        return beta, np.array(wins)

    group = np.arange(rewards.shape[1]) % max(groups, 1)
    beta, wins = measure(group >= 0)
    if groups:
        without = np.mean([measure(group != g)[1] for g in range(groups)], axis=0)
        wins = groups * wins - (groups - 1) * without
    return beta, wins


def _tilt(
    rewards: Float[np.ndarray, "P A"], transform: Transform | None, kl: float
) -> tuple[Float[np.ndarray, "P A"], float]:
    """Weights exp(Φ/β)/Z of the atoms at the β that gives the KL, and that β."""
    training = rewards
    if transform is not None:
        ids = tuple(map(str, range(len(rewards))))
        below, ties = EmpiricalCalibration(ids, rewards).leave_one_out_ranks()
        training = transform.posterior_mean(below, ties, rewards.shape[1] - 1)
    masses = np.full(rewards.shape, 1 / rewards.shape[1])
    beta = beta_for_atoms_kl(masses, training, kl)
    return tilt_atoms(masses, training, beta), beta


def _refuse_few(k: int, procedures: Sequence[RankProcedure], groups: int) -> None:
    needed = 2 * max([procedure.candidates for procedure in procedures] + [groups + 2, 4])
    if k < needed:
        raise ValueError(
            f"{k} rollouts per prompt; halves are tilted and judged apart, which needs at least "
            f"{needed} here (and, for a small error, 16 times the number of candidates). Collect "
            "more rollouts."
        )
