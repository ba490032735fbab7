"""Tilting: what KL-regularised RL converges to, as a law on [0,1] or on finitely many atoms.

Maximising E_π[Φ(u)] − β·KL(π‖π_ref) gives π ∝ π_ref·exp(Φ/β). Since u is uniform under the
reference, the aligned policy is the density f(u) = exp(Φ(u)/β)/Z(β) on [0,1]: no prompt, reward or
model is left in it. β is not comparable across transforms: compare at equal KL.

For a reference with finitely many responses the same tilt is a softmax, `tilt_atoms`.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from infalign.quantile.mesh import Mesh
from infalign.quantile.panels import Numbers
from infalign.quantile.transforms import Transform, refuse_beta

__all__ = [
    "TiltedPolicy",
    "atoms_kl",
    "beta_for_atoms_kl",
    "beta_for_kl",
    "tilt_atoms",
]


@final
@dataclasses.dataclass(frozen=True)
class TiltedPolicy:
    """The density f(u) = exp(Φ(u)/β)/Z on [0,1]: what training on Φ(u) at β converges to.

    Args:
        transform: Φ.
        beta: KL coefficient β > 0.

    Raises:
        ValueError: if β is not positive and finite.

    Example:
        >>> from infalign.quantile.transforms import Log
        >>> best_of_4 = TiltedPolicy(Log(), beta=1 / 3)
        >>> round(float(best_of_4.cdf(0.5)), 12)
        0.0625
        >>> round(float(np.exp(best_of_4.kl + 3 / 4)), 12)
        4.0
    """

    transform: Transform
    """Φ."""
    beta: float
    """KL coefficient. > 0."""

    def __post_init__(self) -> None:
        refuse_beta(self.beta)

    @property
    def name(self) -> str:
        """The transform's."""
        return self.transform.name

    @property
    def log_partition(self) -> float:
        """log Z(β). Nats."""
        return self.transform.log_partition(self.beta)

    @property
    def kl(self) -> float:
        """KL(π‖π_ref) = ∫ f log f. Nats per response."""
        return self.transform.tilted_kl(self.beta)

    def density(self, u: Numbers) -> np.ndarray:
        """f(u)."""
        return np.asarray(np.exp(self.transform(u) / self.beta - self.log_partition))

    def cdf(self, u: Numbers) -> np.ndarray:
        """F(u)."""
        return self.transform.tilted_cdf(u, self.beta)

    def density_on(self, mesh: Mesh) -> Float[np.ndarray, "X"]:
        """f at a mesh's points, summing to 1 there; digits next to u = 1 are kept."""
        exponent = self.transform.tilted_exponent(mesh.u, mesh.x, self.beta)
        density = np.exp(exponent - exponent.max())
        return density / mesh.integral(density)

    def sample(self, size: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Quantiles of independent responses of the aligned policy."""
        return self._quantile(rng.random(size))

    def _quantile(self, mass: np.ndarray) -> np.ndarray:
        """F⁻¹ by Newton, kept inside the bracket that tabulated values of F give."""
        grid = np.concatenate([[0.0], self.transform.law(self.beta).nodes.ravel(), [1.0]])
        table = np.maximum.accumulate(self.cdf(grid))
        high_index = np.clip(np.searchsorted(table, mass), 1, len(grid) - 1)
        low, high = grid[high_index - 1], grid[high_index]
        span = table[high_index] - table[high_index - 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(span > 0, (mass - table[high_index - 1]) / span, 0.5)
            u = low + share * (high - low)
            for _ in range(3):
                step = (self.cdf(u) - mass) / self.density(u)
                u = np.clip(u - np.nan_to_num(step), low, high)
        return u


def beta_for_kl(transform: Transform, kl: float) -> float:
    """The β at which training on Φ ends at the given KL from the reference.

    KL(β) decreases from ∞ (or its supremum) to 0, so there is one; it is found to 1e-13 relative.

    Args:
        transform: Φ.
        kl: target, nats; 1e-8 ≤ kl ≤ 16.

    Raises:
        ValueError: if kl lies outside that range.

    Example:
        >>> from infalign.quantile.transforms import Log
        >>> round(1 / beta_for_kl(Log(), float(np.log(4) - 3 / 4)), 9)
        3.0
    """
    known = transform.known_beta(kl)
    if known is not None:
        return known
    if not 1e-8 <= kl <= 16:
        raise ValueError(
            f"A KL of {kl} nats was asked for; it must lie between 1e-8 and 16: below, the policy "
            "is the reference; above, it lives in the top ten-millionth of its responses."
        )

    def excess(log_beta: float) -> float:
        return np.log(max(transform.tilted_kl(float(np.exp(log_beta))), 1e-300)) - np.log(kl)

    high = 1.0
    while excess(high) > 0:
        high += 2.0
    low = high - 0.7  # small steps: far below the β looked for, a law may have no digits left
    while excess(low) < 0:
        low -= 0.7
        if low < -80:
            raise ValueError(
                f"{transform.name} does not reach a KL of {kl} nats at any β ≥ 1e-34; ask for less."
            )
    high = min(high, low + 0.7)
    return float(np.exp(brentq(excess, low, high, xtol=1e-13, rtol=1e-13)))  # pyright: ignore


def tilt_atoms(
    masses: Float[np.ndarray, "P C"], training_rewards: Float[np.ndarray, "P C"], beta: float
) -> Float[np.ndarray, "P C"]:
    """Tilted masses π ∝ π_ref·exp(Φ/β) of C responses to each of P prompts.

    Atoms of mass 0 keep mass 0, whatever their reward.

    Example:
        >>> tilt_atoms(np.array([[0.5, 0.5]]), np.array([[0.0, np.log(3)]]), beta=1.0).tolist()
        [[0.25, 0.75]]
    """
    refuse_beta(beta)
    _refuse_masses(masses)
    with np.errstate(divide="ignore"):
        log_weights = np.where(masses > 0, np.log(masses) + training_rewards / beta, -np.inf)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def atoms_kl(
    masses: Float[np.ndarray, "P C"], tilted: Float[np.ndarray, "P C"]
) -> Float[np.ndarray, "P"]:
    """KL(tilted ‖ masses) of each prompt, nats. Infinite where `tilted` leaves the support.

    Example:
        >>> atoms_kl(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])).round(6).tolist()
        [0.693147]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(tilted > 0, tilted * (np.log(tilted) - np.log(masses)), 0.0)
    return np.maximum(terms.sum(axis=1), 0.0)


def beta_for_atoms_kl(
    masses: Float[np.ndarray, "P C"], training_rewards: Float[np.ndarray, "P C"], kl: float
) -> float:
    """The one β, shared by all prompts, at which the mean KL over prompts is `kl`.

    Raises:
        ValueError: if kl is not positive or above the largest mean KL a tilt can reach, which is
            the mean of −log(reference mass of the best atoms).

    Example:
        >>> masses, rewards = np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]])
        >>> beta = beta_for_atoms_kl(masses, rewards, kl=0.1)
        >>> round(float(atoms_kl(masses, tilt_atoms(masses, rewards, beta))[0]), 9)
        0.1
    """
    _refuse_masses(masses)
    supported = np.where(masses > 0, training_rewards, -np.inf)
    top = supported >= supported.max(axis=1, keepdims=True)
    largest = max(0.0, float(np.mean(-np.log((masses * top).sum(axis=1)))))
    if not 0 < kl < largest:
        raise ValueError(
            f"A mean KL of {kl} nats was asked for; with these atoms a tilt reaches values above 0 "
            f"and below {largest:.6g}, where all mass is on each prompt's best response."
        )
    spread = np.ptp(np.where(masses > 0, training_rewards, np.nan)[top.any(axis=1)])
    scale = float(spread) if np.isfinite(spread) and spread > 0 else 1.0

    def excess(log_beta: float) -> float:
        tilted = tilt_atoms(masses, training_rewards, scale * float(np.exp(log_beta)))
        return float(atoms_kl(masses, tilted).mean()) - kl

    low, high = -1.0, 1.0
    while excess(low) < 0 and low > -600:
        low -= 2.0
    while excess(high) > 0:
        high += 2.0
    return scale * float(np.exp(brentq(excess, low, high, xtol=1e-12)))  # pyright: ignore


def _refuse_masses(masses: np.ndarray) -> None:
    sums = masses.sum(axis=1)
    bad = np.flatnonzero(~(np.abs(sums - 1) < 1e-6) | (masses < 0).any(axis=1))
    if len(bad):
        raise ValueError(
            f"Masses of prompt {bad[0]} sum to {sums[bad[0]]:.8g} (smallest "
            f"{masses[bad[0]].min():.3g}); each prompt's masses must be ≥ 0 and sum to 1."
        )
