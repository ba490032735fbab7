"""Rewind-and-repeat: sample until a response is good enough, at most M times.

With q = F(φ) the chance of a response below the threshold, an answer below it is the last of M that
all failed, and an answer above it is the first that did not:

    t(u) = f(u)·q^{M−1}  below φ,      t(u) = f(u)·(1 − q^M)/(1 − q)  above.

Being just below φ can be worth *more* than being just above: it is rewound, and what follows may be
better. The optimal transform may therefore fall at φ.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.mesh import Mesh
from infalign.quantile.panels import Numbers
from infalign.quantile.procedures.procedure import Law, Procedure, refuse_candidates
from infalign.quantile.procedures.ranks import refuse_n

__all__ = ["RewindAndRepeat"]


@final
@dataclasses.dataclass(frozen=True)
class RewindAndRepeat(Procedure):
    """Sample until a quantile reaches the threshold, at most M times; answer with the last.

    Args:
        threshold: φ in [0,1), on quantiles under the reference.
        at_most: M ≥ 1.

    Raises:
        ValueError: on a threshold outside [0,1) or an M that is not a count.

    Example:
        >>> from infalign.quantile.procedures import Uniform
        >>> rewind = RewindAndRepeat(threshold=0.5, at_most=2)
        >>> rewind.decoded_cdf(Uniform(), [0.25, 0.5, 0.75]).tolist()
        [0.125, 0.25, 0.625]
        >>> rewind.mean_candidates(Uniform())
        1.5
    """

    threshold: float
    """φ."""
    at_most: int
    """M."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"threshold is {self.threshold} in rewind-and-repeat; it is a quantile of the "
                "reference, at least 0 (anything will do) and below 1."
            )
        refuse_n(self.at_most, "rewind-and-repeat (at_most)")

    @property
    def name(self) -> str:
        return f"rewind({self.threshold:g}, {self.at_most})"

    @property
    def candidates(self) -> int:
        return self.at_most

    @property
    def breaks(self) -> tuple[float, ...]:
        return (self.threshold,) if self.threshold > 0 else ()

    def decoded_cdf(self, law: Law, u: Numbers) -> np.ndarray:
        cdf, q = law.cdf(np.asarray(u, dtype=float)), law.cdf(np.array([self.threshold]))[0]
        low, high = self._factors(q)[:2]
        return np.where(np.asarray(u) < self.threshold, cdf * low, q * low + (cdf - q) * high)

    def decoded_density(self, mesh: Mesh, density: np.ndarray) -> np.ndarray:
        failed = self._fails(mesh)
        low, high = self._factors(mesh.integral(density * failed))[:2]
        return density * np.where(failed, low[..., None], high[..., None])

    def first_variation(self, mesh: Mesh, density: np.ndarray, worth: np.ndarray) -> np.ndarray:
        failed = self._fails(mesh)
        low, high, low_slope, high_slope = self._factors(mesh.integral(density * failed))
        worth_below = mesh.integral(worth * density * failed)
        worth_above = mesh.integral(worth * density * ~failed)
        rewound = (low_slope * worth_below + high_slope * worth_above)[..., None]
        return np.where(failed, low[..., None] * worth + rewound, high[..., None] * worth)

    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        passed = refuse_candidates(self, quantiles) >= self.threshold
        first = passed.argmax(axis=-1)
        return np.where(passed.any(axis=-1), first, self.at_most - 1)

    @property
    def is_sequential(self) -> bool:
        return self.at_most > 1

    def select_early(
        self,
        quantiles: Float[np.ndarray, "k"],
        rng: np.random.Generator,
        *,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> int | None:
        passed = np.flatnonzero(np.asarray(quantiles) >= self.threshold)
        if len(passed):
            return int(passed[0])
        return self.at_most - 1 if len(quantiles) >= self.at_most else None

    def mean_candidates(self, law: Law) -> float:
        """(1 − q^M)/(1 − q): it stops at the first that passes."""
        return float(self._factors(law.cdf(np.array([self.threshold]))[0])[1])

    def _fails(self, mesh: Mesh) -> np.ndarray:
        return mesh.quantiles < self.threshold

    def _factors(self, q: Numbers) -> tuple[np.ndarray, ...]:
        """a = q^{M−1}, b = Σ_{k<M} q^k, and their derivatives in q."""
        q, m = np.asarray(q)[..., None], self.at_most
        k = np.arange(m)
        a, b = q[..., 0] ** (m - 1), (q**k).sum(axis=-1)
        steps = k[1:] * q ** (k[1:] - 1)
        return a, b, steps[..., -1] if m > 1 else 0 * a, steps.sum(axis=-1)
