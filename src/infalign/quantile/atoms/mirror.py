"""Mirror ascent: the optimal policy on finitely many responses, for any procedure at all.

Majority votes, verifiers, whatever can say how it turns a policy's masses into the law of its
answer: W(π) = Σ_i T(π)_i·h_i, with h_i the chance that response i beats the reference's answer.
Where W − β·KL is stationary, π ∝ π_ref·exp(∇W/β): the gradient is the training reward. Steps are
taken towards that law in the logarithm of π, never downhill, and Newton's method ends them.

Nothing makes W concave. So it is started from several places, and every stationary point that was
reached is handed over with the best.
"""

import dataclasses
from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.quantile.atoms.differentiating import Gradient, gradient_of
from infalign.quantile.tilting import atoms_kl, beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import refuse_beta

__all__ = ["MirrorOptimum", "StationaryPoint", "mirror_ascent", "worth_against"]

Decode = Callable[[np.ndarray], np.ndarray]
"""Masses (..., C) → decoded masses (..., C)."""
NEWTON = 12
"""Newton steps at most; four are usual."""
NEAR = 1e-3
"""Residual below which they are tried."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class StationaryPoint:
    """A policy that training on its own gradient would leave where it is."""

    masses: Float[np.ndarray, "C"]
    """π."""
    beta: float
    """β."""
    kl: float
    """KL(π‖π_ref), nats."""
    win_rate: float
    """W."""
    residual: float
    """‖π − π_ref·exp(∇W/β)/Z‖₁."""
    training_rewards: Float[np.ndarray, "C"]
    """∇W: what to train on at β. Its mean under π is 0."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class MirrorOptimum:
    """The best stationary point, and all that were found."""

    best: StationaryPoint
    """The one with the largest W − β·KL, or W where a KL was asked for."""
    stationary: tuple[StationaryPoint, ...]
    """All distinct ones, best first. More may exist."""


def worth_against(
    decoded_reference: Float[np.ndarray, "C"], rewards: Float[np.ndarray, "C"]
) -> Float[np.ndarray, "C"]:
    """h: chance that each response beats the reference's answer, ties half.

    Example:
        >>> worth_against(np.array([0.5, 0.25, 0.25]), np.array([0.0, 1.0, 1.0])).tolist()
        [0.25, 0.75, 0.75]
    """
    sign = np.sign(rewards[:, None] - rewards)
    return (1 + sign) @ decoded_reference / 2


def mirror_ascent(
    reference_masses: Float[np.ndarray, "C"],
    decode: Decode,
    rewards: Float[np.ndarray, "C"],
    *,
    beta: float | None = None,
    kl: float | None = None,
    reference_decode: Decode | None = None,
    gradient: Gradient | None = None,
    tolerance: float = 1e-10,
    steps: int = 2000,
    starts: int = 6,
    rng: np.random.Generator | None = None,
) -> MirrorOptimum:
    """The masses that win most, W(π) − β·KL(π‖π_ref) or W(π) at a given KL.

    Args:
        reference_masses: π_ref, all positive, summing to 1.
        decode: masses (..., C) to the masses of the answer (..., C).
        rewards: what wins, higher is better; the judge's, which `decode` need not know.
        beta: KL coefficient; this or `kl`.
        kl: nats.
        reference_decode: decodes the reference; `decode` where None.
        gradient: (masses, h) to ∇(Σ T(π)·h), up to a constant; where None, that of `decode` if it
            has one, else by a complex step, else by differences.
        tolerance: largest residual that is accepted.
        steps: mirror steps at most, from each start.
        starts: how many: the reference, tilts towards and away from the rewards, random ones.
        rng: draws those; seed 0 where None.

    Raises:
        ValueError: unless exactly one of beta and kl is given, on bad masses or rewards, or on a KL
            beyond −log of the best responses' mass.
        ArithmeticError: if no start comes to rest within the tolerance.

    Reference:
        Mirror descent and nonlinear projected subgradient methods for convex optimization
        (Beck and Teboulle, 2003).

    Example:
        >>> masses, rewards = np.full(4, 0.25), np.arange(4.0)
        >>> optimum = mirror_ascent(masses, lambda m: m, rewards, beta=0.5)
        >>> tilted = tilt_atoms(masses[None], (np.arange(4.0) / 4)[None], 0.5)[0]
        >>> bool(np.allclose(optimum.best.masses, tilted, atol=1e-12)), len(optimum.stationary)
        (True, 1)
    """
    _refuse(reference_masses, rewards, beta, kl)
    decoded_reference = (reference_decode or decode)(reference_masses)
    worth = worth_against(decoded_reference, rewards)
    slope = gradient or gradient_of(decode, reference_masses)
    climb = _Climb(reference_masses, decode, worth, slope, beta, kl)
    rng = rng or np.random.default_rng(0)
    tilts = _starts(rewards, starts, 1.0 if beta is None else 1 / beta, rng)
    ended = [climb.polished(climb.ascended(tilt, steps)) for tilt in climb.possible(tilts)]
    at_rest = [point for point in ended if point.residual <= tolerance]
    if not at_rest:
        raise ArithmeticError(
            f"None of {len(ended)} starts came to rest: the smallest residual is "
            f"{min(point.residual for point in ended):.1e}, above {tolerance:.1e}. Allow more "
            "steps or a larger tolerance; a procedure that jumps may have no better."
        )
    ranked = sorted(at_rest, key=climb.value, reverse=True)
    distinct: list[StationaryPoint] = []
    for point in ranked:
        if all(np.abs(point.masses - other.masses).sum() > 1e-6 for other in distinct):
            distinct.append(point)
    return MirrorOptimum(distinct[0], tuple(distinct))


def _starts(
    rewards: np.ndarray, count: int, scale: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Logarithms of π/π_ref to begin from."""
    ranks = np.unique(rewards, return_inverse=True)[1] / max(1, len(np.unique(rewards)) - 1)
    tilts = [0.01 * ranks, scale * ranks, -scale * ranks]
    tilts += [scale * rng.normal(size=len(rewards)) for _ in range(count - len(tilts))]
    return tilts[:count]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class _Climb:
    """One problem; a state is a tilt e = log(π/π_ref), known up to a constant."""

    reference: np.ndarray
    decode: Decode
    worth: np.ndarray
    gradient: Gradient
    beta: float | None
    kl: float | None

    def possible(self, tilts: list[np.ndarray]) -> list[np.ndarray]:
        """Those that can be scaled to the KL; an error where not even the rewards can."""
        if self.kl is None:
            return tilts
        self.on_sphere(self.worth)  # raises, and says how far one can go
        return [tilt for tilt in tilts if self.kl < self._largest_kl(tilt)]

    def value(self, point: StationaryPoint) -> float:
        """What is maximised."""
        return point.win_rate - (0.0 if self.beta is None else self.beta * point.kl)

    def masses(self, tilt: np.ndarray) -> np.ndarray:
        return tilt_atoms(self.reference[None], tilt[None], 1.0)[0]

    def on_sphere(self, tilt: np.ndarray) -> np.ndarray:
        """Scaled to the KL that is asked for, where one is."""
        if self.kl is None:
            return tilt
        kl = min(self.kl, 0.999999 * self._largest_kl(tilt)) if tilt is not self.worth else self.kl
        return tilt / beta_for_atoms_kl(self.reference[None], tilt[None], kl)

    def point(self, tilt: np.ndarray, beta: float | None = None) -> StationaryPoint:
        """The policy, its gradient and its residual."""
        masses = self.masses(tilt)
        phi = self.gradient(masses, self.worth)
        phi = phi - masses @ phi
        if beta is None:
            beta = self.beta or self._beta_for(phi)
        residual = float(np.abs(masses - self.masses(phi / beta)).sum())
        kl = float(atoms_kl(self.reference[None], masses[None])[0])
        win_rate = float(np.real(self.decode(masses)) @ self.worth)
        return StationaryPoint(masses, beta, kl, win_rate, residual, phi)

    def _beta_for(self, phi: np.ndarray) -> float:
        """β at which φ has the KL, or nearly the most it can have."""
        kl = min(self.kl or 0.0, 0.99 * self._largest_kl(phi))
        return beta_for_atoms_kl(self.reference[None], phi[None], kl)

    def _largest_kl(self, tilt: np.ndarray) -> float:
        return float(-np.log(self.reference[tilt >= tilt.max()].sum()))

    def ascended(self, tilt: np.ndarray, steps: int) -> tuple[np.ndarray, StationaryPoint]:
        """Mirror steps with backtracking: the value never falls."""
        tilt, step = self.on_sphere(tilt), 1.0
        point = self.point(tilt)
        for _ in range(steps):
            if point.residual < NEAR:
                break
            towards = point.training_rewards / point.beta
            while step > 1e-9:
                moved = self.on_sphere((1 - step) * tilt + step * towards)
                new = self.point(moved)
                if self.value(new) >= self.value(point) - 1e-15:
                    break
                step /= 2
            else:
                break
            tilt, point, step = moved, new, min(1.0, 2 * step)
        return tilt, point

    def polished(self, state: tuple[np.ndarray, StationaryPoint]) -> StationaryPoint:
        """Newton's method on e = ∇W/β, with the KL as another equation where it is given.

        A step is kept if the residual falls and the value does not, so that it stays the local
        maximum that was climbed.
        """
        tilt, point = state
        for _ in range(NEWTON):
            if point.residual < 1e-14:
                break
            step = self._newton_step(tilt, point)
            for damping in (1.0, 0.5, 0.1):
                moved, beta = tilt + damping * step[:-1], point.beta * np.exp(damping * step[-1])
                if not np.isfinite(moved).all():
                    continue
                new = self.point(self.on_sphere(moved), None if self.kl is None else float(beta))
                falls = self.value(new) < self.value(point) - 1e-9 * (1 + point.residual)
                if new.residual < point.residual and not falls:
                    break
            else:
                break
            tilt, point = self.on_sphere(moved), new
        return point

    def _newton_step(self, tilt: np.ndarray, point: StationaryPoint) -> np.ndarray:
        """(δe, δlog β) that would solve the linearised equations."""
        count, h, masses = len(tilt), 1e-4, point.masses
        phi = self.gradient(masses, self.worth)
        system = np.eye(count + 1)
        for j, bump in enumerate(h * np.eye(count)):
            up, down = (
                self.gradient(self.masses(tilt + sign * bump), self.worth) for sign in (1, -1)
            )
            system[:count, j] -= (up - down) / (2 * h * point.beta)
        errors = tilt - phi / point.beta
        errors = np.append(errors - errors.mean(), 0.0)  # a constant in the tilt is nothing
        if self.kl is not None:
            system[:count, count] = phi / point.beta
            system[count, :count] = masses * (tilt - masses @ tilt)
            system[count, count], errors[count] = 0.0, point.kl - self.kl
        try:
            return -np.linalg.solve(system, errors)
        except np.linalg.LinAlgError:
            return np.full(count + 1, np.nan)


def _refuse(masses: np.ndarray, rewards: np.ndarray, beta: float | None, kl: float | None) -> None:
    if masses.ndim != 1 or masses.shape != rewards.shape:
        raise ValueError(
            f"Masses of shape {masses.shape} and rewards of shape {rewards.shape} came; one of "
            "each for every response is needed."
        )
    if not (masses > 0).all() or not abs(masses.sum() - 1) < 1e-9:
        raise ValueError(
            f"Reference masses sum to {masses.sum():.10g}, the smallest is {masses.min():.3g}; "
            "they must be positive and sum to 1. Leave out responses the reference never gives."
        )
    if not np.isfinite(rewards).all():
        raise ValueError("A reward is not finite; responses cannot be compared by it.")
    if (beta is None) == (kl is None):
        raise ValueError(f"beta is {beta} and kl is {kl}; give exactly one of them.")
    if beta is not None:
        refuse_beta(beta)
