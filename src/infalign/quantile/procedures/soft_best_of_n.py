"""Soft best-of-N: sample N, answer with one drawn with weights exp(u/λ).

Between best-of-N (λ → 0) and a single sample (λ → ∞). With c(u) = exp((u−1)/λ), the chance of
being chosen among N − 1 others is E[c/(c + S)], S the sum of theirs. Writing
1/(c + S) = ∫₀^∞ e^{−s(c+S)} ds makes the others factorise:

    t(u) = N·f(u)·∫₀^∞ c·e^{−sc}·L(s)^{N−1} ds,      L(s) = ∫ f·e^{−sc} du.

In log s the integrand dies doubly exponentially on both sides, so the trapezoid rule has all
digits.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.mesh import Mesh
from infalign.quantile.procedures.procedure import Procedure, refuse_candidates
from infalign.quantile.procedures.ranks import refuse_n

__all__ = ["SoftBestOfN"]

STEP = 0.25
"""In log s. The error falls like exp(−π²/step)."""


@final
@dataclasses.dataclass(frozen=True)
class SoftBestOfN(Procedure):
    """Sample N, answer with one drawn with weights exp(u/λ).

    Args:
        n: N ≥ 1.
        temperature: λ ≥ 0.005, in quantiles.

    Raises:
        ValueError: on an N that is not a count, or a λ that is not finite and ≥ 0.005 (below,
            it is best-of-N to all practical purposes).

    Reference:
        Soft Best-of-n Sampling for Model Alignment (arXiv:2505.03156).

    Example:
        >>> from infalign.quantile.procedures import Uniform
        >>> hard, soft = SoftBestOfN(4, 0.005), SoftBestOfN(4, 1e6)
        >>> [round(float(p.decoded_cdf(Uniform(), 0.5)), 4) for p in (hard, soft)]
        [0.0626, 0.5]
    """

    n: int
    """N."""
    temperature: float
    """λ."""

    def __post_init__(self) -> None:
        refuse_n(self.n, "soft-best-of-n")
        if not (0.005 <= self.temperature < np.inf):
            raise ValueError(
                f"temperature is {self.temperature} in soft-best-of-n; it is in units of quantiles "
                "and must be finite and at least 0.005. For less use best-of-n, which it then is."
            )

    @property
    def name(self) -> str:
        return f"soft-best-of-{self.n}(λ={self.temperature:g})"

    @property
    def candidates(self) -> int:
        return self.n

    def decoded_density(self, mesh: Mesh, density: np.ndarray) -> np.ndarray:
        chosen, _, others, ds = self._parts(mesh, density)
        return self.n * density * ((others ** (self.n - 1) * ds) @ chosen)

    def first_variation(self, mesh: Mesh, density: np.ndarray, worth: np.ndarray) -> np.ndarray:
        chosen, alone, others, ds = self._parts(mesh, density)
        answered = (density * worth * mesh.weights) @ chosen.T
        own = worth * ((others ** (self.n - 1) * ds) @ chosen)
        if self.n == 1:
            return own
        crowding = (self.n - 1) * (answered * others ** (self.n - 2) * ds) @ alone
        return self.n * (own + crowding)

    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        quantiles = refuse_candidates(self, quantiles)
        noise = rng.gumbel(
            size=quantiles.shape
        )  # the largest of log-weight + Gumbel is such a draw
        return (quantiles / self.temperature + noise).argmax(axis=-1)

    def _parts(
        self, mesh: Mesh, density: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """c·e^{−sc} and e^{−sc} (S × X), L(s) (… S), ds (S)."""
        s = np.exp(np.arange(-40.0, 1 / self.temperature + 5.0, STEP))
        weight = np.exp((mesh.quantiles - 1) / self.temperature)
        alone = np.exp(-s[:, None] * weight)
        return weight * alone, alone, (density * mesh.weights) @ alone.T, STEP * s
