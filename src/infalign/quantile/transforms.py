"""Transforms: quantile → training reward Φ(u), with its log-partition.

A transform is an increasing function on [0,1]. KL-regularised RL on the reward Φ(u) converges to
the density exp(Φ(u)/β)/Z over quantiles, so choosing Φ is choosing the aligned policy; Z is known
exactly, which spares offline training its baseline.

A member is about fifteen lines: Φ itself, and closed forms where they exist. Everything else
(the tilted law, the finite-K corrections) follows by quadrature from the base class.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special

from infalign.quantile.panels import Numbers, RunningIntegral, TiltedLaw, graded_edges, panel_rule

__all__ = ["Custom", "Exponential", "Identity", "Log", "Transform", "refuse_beta"]


def refuse_beta(beta: float) -> None:
    """Raise ValueError unless β is a positive finite number."""
    if not (beta > 0 and np.isfinite(beta)):
        raise ValueError(
            f"beta is {beta}; the KL coefficient must be positive and finite, because the aligned "
            "policy is proportional to exp(Φ/β). β → ∞ is the reference itself."
        )


class Transform(ABC):
    """An increasing function Φ on [0,1] and what follows from it.

    Subclasses are frozen dataclasses: their fields are their identity.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""

    @abstractmethod
    def __call__(self, u: Numbers) -> np.ndarray:
        """Φ(u), dimensionless, elementwise; u in [0,1]."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which Φ jumps; integrals are cut there."""
        return ()

    def log_partition(self, beta: float) -> float:
        """log Z(β) = log ∫₀¹ exp(Φ(u)/β) du. Nats."""
        return self.law(beta).log_mass

    def law(self, beta: float) -> TiltedLaw:
        """The density exp(Φ/β)/Z on adaptive panels: what every integral is taken with."""
        refuse_beta(beta)
        return _law(self, float(beta))

    def tilted_cdf(self, u: Numbers, beta: float) -> np.ndarray:
        """F(u) = ∫₀ᵘ exp(Φ/β)/Z."""
        return self.law(beta).cdf(np.asarray(u, dtype=float))

    def tilted_kl(self, beta: float) -> float:
        """∫ f log f of the tilted density. Nats."""
        return self.law(beta).kl

    def tilted_exponent(self, u: np.ndarray, x: np.ndarray, beta: float) -> np.ndarray:
        """Φ(u)/β up to a constant, at u = 1 − x: for members that know it better next to 1."""
        return self(u) / beta

    def known_beta(self, kl: float) -> float | None:
        """The β at which the tilt has this KL, where it is known without a search."""
        return None

    def interval_mean(self, a: Numbers, b: Numbers) -> np.ndarray:
        """Average of Φ over [a, b]: the training reward of an atom that occupies those quantiles.

        Where a reference policy has atoms (finitely many responses), a response owns an interval
        of quantiles, not a point. Where a = b this is Φ(a).
        """
        a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        if np.any(a > b):
            raise ValueError("An interval [a, b] with a > b came; give the lower quantile first.")
        integral, width = _running_integral(self), b - a
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray((integral(b) - integral(a)) / width)
        # The difference of integrals loses digits on the thinnest atoms; their middle will do.
        thin = width < 1e-6
        mean[thin] = self((a[thin] + b[thin]) / 2)
        return mean

    def posterior_mean(self, below: Numbers, ties: Numbers, k: int) -> np.ndarray:
        """E[Φ(U)] of a response's true quantile U, given its rank among k reference rewards.

        A response with r of k reference rewards below it and none equal has U ~ Beta(r+1, k−r+1).
        Tied with some, it is equally likely at every rank r = below … below + ties.

        Args:
            below: reference rewards below, 0 … k.
            ties: reference rewards equal, 0 … k − below.
            k: reference rewards compared with (K − 1 for reference rollouts themselves).

        Example:
            >>> Identity().posterior_mean([0, 1], [0, 1], k=2).tolist()
            [0.25, 0.625]
        """
        below, ties = np.asarray(below), np.asarray(ties)
        if np.any(below < 0) or np.any(ties < 0) or np.any(below + ties > k):
            raise ValueError(
                f"Ranks from {below.min()} to {(below + ties).max()} came with k = {k}; a rank "
                "counts reference rewards, 0 to k. For leave-one-out ranks k is K − 1."
            )
        sums = np.concatenate([[0.0], np.cumsum(self.rank_means(k))])
        means = (sums[below + ties + 1] - sums[below]) / (ties + 1)
        return np.where(ties == 0, self.rank_means(k)[below], means)

    def rank_means(self, k: int) -> Float[np.ndarray, "R"]:
        """Φ̄_k(r) = E[Φ(Beta(r+1, k−r+1))] for every rank r = 0 … k."""
        return _rank_means(self, k)

    def finite_log_partition(self, beta: float, k: int) -> float:
        """log (k+1)⁻¹ Σ_r exp(Φ̄_k(r)/β): the exact log Z of what is trained on at finite k.

        A fresh reference response is equally likely at each of the k + 1 ranks.

        Example:
            >>> z = np.exp(Identity().finite_log_partition(0.5, k=1))
            >>> round(float(z - (np.exp(2 / 3) + np.exp(4 / 3)) / 2), 12) + 0.0
            0.0
        """
        refuse_beta(beta)
        return float(special.logsumexp(self.rank_means(k) / beta) - np.log(k + 1))

    def _posterior_means(self, k: int) -> np.ndarray:
        """`rank_means` by quadrature; members with a closed form replace it."""
        nodes, weights = panel_rule(np.unique(np.append(graded_edges(inner=64), self.breaks)))
        nodes, weights = nodes.ravel(), weights.ravel()
        phi, below, above = self(nodes), np.log(nodes), np.log1p(-nodes)
        means = []
        for ranks in np.array_split(np.arange(k + 1), 1 + k // 512):  # bounded memory at any k
            rank = ranks[:, None]
            log_beta = special.betaln(rank + 1, k - rank + 1)
            means.append((np.exp(rank * below + (k - rank) * above - log_beta) * weights) @ phi)
        return np.concatenate(means)


@lru_cache(maxsize=256)
def _law(transform: Transform, beta: float) -> TiltedLaw:
    return TiltedLaw.of(lambda u: transform(u) / beta, transform.breaks)


@lru_cache(maxsize=256)
def _running_integral(transform: Transform) -> RunningIntegral:
    return RunningIntegral.of(transform, transform.breaks)


@lru_cache(maxsize=256)
def _rank_means(transform: Transform, k: int) -> np.ndarray:
    if k < 1:
        raise ValueError(f"k is {k}; a rank needs at least one reference reward to compare with.")
    means = transform._posterior_means(k)
    means.setflags(write=False)
    return means


@final
@dataclasses.dataclass(frozen=True)
class Identity(Transform):
    """Φ(u) = u: calibration alone. Optimal for the ordinary win rate, without any procedure.

    log Z = log(β(e^{1/β} − 1)).

    Example:
        >>> round(float(np.exp(Identity().log_partition(1.0)) - np.e), 12)
        -1.0
    """

    @property
    def name(self) -> str:
        return "identity"

    def __call__(self, u: Numbers) -> np.ndarray:
        return np.array(u, dtype=float)

    def log_partition(self, beta: float) -> float:
        refuse_beta(beta)
        return float(1 / beta + np.log(-beta * np.expm1(-1 / beta)))

    def tilted_cdf(self, u: Numbers, beta: float) -> np.ndarray:
        refuse_beta(beta)
        u = np.asarray(u, dtype=float)
        # e^{(u−1)/β} taken out: e^{u/β} overflows for β < 1/700.
        return np.asarray(np.exp((u - 1) / beta) * np.expm1(-u / beta) / np.expm1(-1 / beta))

    def interval_mean(self, a: Numbers, b: Numbers) -> np.ndarray:
        return np.asarray((np.asarray(a, dtype=float) + np.asarray(b, dtype=float)) / 2)

    def _posterior_means(self, k: int) -> np.ndarray:
        return (np.arange(k + 1) + 1) / (k + 2)


@final
@dataclasses.dataclass(frozen=True)
class Log(Transform):
    """Φ(u) = log u: the aligned policy is best-of-(1 + 1/β), at non-integer N too.

    F(u) = u^M with M = 1 + 1/β, and its best-of-N win rate is M/(M+1) for every N.
    log Z = −log(1 + 1/β).

    Example:
        >>> round(float(np.exp(Log().tilted_kl(1 / 3) + 3 / 4)), 12)
        4.0
    """

    @property
    def name(self) -> str:
        return "log"

    def __call__(self, u: Numbers) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.asarray(u, dtype=float)))

    def log_partition(self, beta: float) -> float:
        refuse_beta(beta)
        return float(-np.log1p(1 / beta))

    def tilted_cdf(self, u: Numbers, beta: float) -> np.ndarray:
        refuse_beta(beta)
        return np.asarray(np.asarray(u, dtype=float) ** (1 + 1 / beta))

    def tilted_kl(self, beta: float) -> float:
        refuse_beta(beta)
        # log M − 1 + 1/M; for large β a difference of nearly equal numbers, hence the series.
        x = 1 / beta
        if x < 1e-3:
            return x**2 * (1 / 2 - x * (2 / 3 - x * (3 / 4 - x * 4 / 5)))
        return float(np.log1p(x) - x / (1 + x))

    def interval_mean(self, a: Numbers, b: Numbers) -> np.ndarray:
        a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        # (b log b − a log a)/(b − a) − 1 written in d = (b − a)/b, which does not cancel.
        with np.errstate(divide="ignore", invalid="ignore"):
            d = (b - a) / b
            lower = (1 - d) * np.log1p(-d) / d
            mean = np.log(b) - 1 - np.where(d == 1, 0.0, lower)
        return np.where(a == b, self(b), mean)

    def _posterior_means(self, k: int) -> np.ndarray:
        return special.digamma(np.arange(k + 1) + 1.0) - special.digamma(k + 2.0)


@final
@dataclasses.dataclass(frozen=True)
class Exponential(Transform):
    """Φ(u) = (e^{tu} − 1)/(e^t − 1): increasing from 0 to 1 for either sign of t.

    t > 0 rewards the top (best-of-N), t < 0 punishes the bottom (worst-of-N). The paper's
    sign(t)·e^{tu} differs from it by a constant, and by a factor that rescales β; normalised, β has
    the same readable size for every t.

    Args:
        t: steepness, finite and not 0; |t| ≈ 10 suits N = 4.

    Raises:
        ValueError: if t is 0 (that limit is the identity) or not finite.

    Reference:
        InfAlign: Inference-aware language model alignment (arXiv:2412.19792), §5.

    Example:
        >>> Exponential(10.0)([0.0, 1.0]).tolist(), Exponential(-10.0)([0.0, 1.0]).tolist()
        ([0.0, 1.0], [0.0, 1.0])
    """

    t: float = 10.0
    """Steepness: Φ'(1)/Φ'(0) = e^t."""

    def __post_init__(self) -> None:
        if self.t == 0 or not np.isfinite(self.t):
            raise ValueError(
                f"t is {self.t}; it must be finite and not 0. The limit t → 0 is the identity "
                "transform; the usual values are 10 for best-of-4 and -10 for worst-of-4."
            )

    @property
    def name(self) -> str:
        return f"exp({self.t:g})"

    def __call__(self, u: Numbers) -> np.ndarray:
        u = np.asarray(u, dtype=float)
        if self.t > 0:  # e^{t(u−1)} taken out, so that large t does not overflow
            return np.asarray(np.exp(self.t * (u - 1)) * np.expm1(-self.t * u) / np.expm1(-self.t))
        return np.asarray(np.expm1(self.t * u) / np.expm1(self.t))


@final
@dataclasses.dataclass(frozen=True)
class Custom(Transform):
    """A transform of your own, from a function.

    Args:
        function: Φ, vectorised over arrays of u in [0,1]; increasing (steps and flat pieces are
            fine), finite at u = 1, −∞ at most at u = 0.
        label: its name in figures and tables.
        jumps: quantiles at which it jumps, so that integrals are cut there.

    Raises:
        ValueError: where it falls, is not a number or not finite, saying at which u; if it is the
            same everywhere; if it does not return one number per u.

    Example:
        >>> squared = Custom(lambda u: u**2, "squared")
        >>> round(squared.tilted_kl(0.5), 4)
        0.202
        >>> Custom(lambda u: (u - 0.25) ** 2, "valley")
        Traceback (most recent call last):
        ...
        ValueError: The transform 'valley' falls from 0.0625 at u = 0 to 0 at u = 0.25; it must increase, or training would prefer responses of lower reward.
    """  # noqa: E501

    function: Callable[[np.ndarray], np.ndarray]
    """Φ."""
    label: str
    """Name."""
    jumps: tuple[float, ...] = ()
    """Where it jumps."""

    def __post_init__(self) -> None:
        if any(not 0 < jump < 1 for jump in self.jumps):
            raise ValueError(f"Jumps {self.jumps} came; quantiles between 0 and 1 are needed.")
        u = np.union1d(np.linspace(0, 1, 101), panel_rule(graded_edges(inner=64))[0])
        phi = self(u)
        if phi.shape != u.shape:
            raise ValueError(
                f"The transform {self.label!r} turned {u.shape} quantiles into {phi.shape}; it "
                "must take an array and give one number for each entry."
            )
        bad = np.isnan(phi) | np.isposinf(phi) | (np.isneginf(phi) & (u > 0))
        if bad.any():
            raise ValueError(
                f"The transform {self.label!r} is {phi[bad][0]} at u = {u[bad][0]:.6g}; a finite "
                "number is needed (−∞ at u = 0 at most)."
            )
        top = np.maximum.accumulate(phi)
        fallen = phi < top - 1e-9 * np.maximum(1.0, np.abs(top))
        if fallen.any():
            here = int(np.argmax(fallen))
            before = int(np.argmax(phi[:here] >= top[here]))
            here += int(np.argmax(np.append(np.diff(phi[here:]) >= 0, True)))  # to the valley
            raise ValueError(
                f"The transform {self.label!r} falls from {phi[before]:.6g} at u = {u[before]:.6g} "
                f"to {phi[here]:.6g} at u = {u[here]:.6g}; it must increase, or training would "
                "prefer responses of lower reward."
            )
        if phi[-1] == phi[u > 0][0]:
            raise ValueError(
                f"The transform {self.label!r} is {phi[-1]:.6g} everywhere; it rewards nothing."
            )

    @property
    def name(self) -> str:
        return self.label

    @property
    def breaks(self) -> tuple[float, ...]:
        return self.jumps

    def __call__(self, u: Numbers) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(self.function(np.asarray(u, dtype=float)), dtype=float)
