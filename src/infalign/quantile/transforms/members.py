"""The transforms of the field: identity, log, exponential."""

import dataclasses
from typing import final

import numpy as np
from scipy import special

from infalign.quantile.panels import Numbers
from infalign.quantile.transforms.transform import Transform, refuse_beta

__all__ = ["Exponential", "Identity", "Log"]

STEEPEST = 1e6
"""|t| at most: beyond, only a millionth of the responses are told apart."""


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
        t: steepness, |t| ≤ 10⁶ and not 0; |t| ≈ 10 suits N = 4.

    Raises:
        ValueError: if t is 0 (that limit is the identity) or |t| above 10⁶.

    Reference:
        InfAlign: Inference-aware language model alignment (arXiv:2412.19792), §5.

    Example:
        >>> Exponential(10.0)([0.0, 1.0]).tolist(), Exponential(-10.0)([0.0, 1.0]).tolist()
        ([0.0, 1.0], [0.0, 1.0])
    """

    t: float = 10.0
    """Steepness: Φ'(1)/Φ'(0) = e^t."""

    def __post_init__(self) -> None:
        if self.t == 0 or not abs(self.t) <= STEEPEST:
            raise ValueError(
                f"t is {self.t}; it must lie between −{STEEPEST:g} and {STEEPEST:g} and not be 0. "
                "The limit t → 0 is the identity transform; the usual values are 10 for best-of-4 "
                "and -10 for worst-of-4."
            )

    @property
    def name(self) -> str:
        return f"exp({self.t:g})"

    def __call__(self, u: Numbers) -> np.ndarray:
        u = np.asarray(u, dtype=float)
        if self.t > 0:  # e^{t(u−1)} taken out, so that large t does not overflow
            return np.asarray(np.exp(self.t * (u - 1)) * np.expm1(-self.t * u) / np.expm1(-self.t))
        return np.asarray(np.expm1(self.t * u) / np.expm1(self.t))
