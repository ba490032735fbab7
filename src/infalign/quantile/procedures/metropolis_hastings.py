"""Metropolis–Hastings: n steps of a chain that proposes whole responses of the policy.

Proposals u′ are independent of the current u and accepted with probability min(1, ω(u′)/ω(u)), ω
increasing: better ones always, worse ones sometimes. The chain leads from the policy f to the tilt
∝ f·ω. With ω = u^{N−1} (Φ = log u at β = 1/(N−1)) it imitates best-of-N of the reference at any
number of steps. Its law after each step is exact, two cumulative sums:

    p₀ = f,   p_{t+1}(u) = f(u)·[∫₀ᵘ p_t + ω(u)·∫_u¹ p_t/ω] + p_t(u)·R(u),

R(u) = ∫₀ᵘ f·(1 − ω(v)/ω(u)) dv being the chance that the next proposal is refused.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.mesh import Mesh
from infalign.quantile.procedures.decaying import Decaying
from infalign.quantile.procedures.procedure import Procedure, refuse_candidates
from infalign.quantile.transforms import Log, Transform, refuse_beta

__all__ = ["MetropolisHastings"]

LOG = Log()
LONGEST = 1024
"""Steps at most."""


@final
@dataclasses.dataclass(frozen=True)
class MetropolisHastings(Procedure):
    """Start from a sample, propose n more, answer with the chain's last state.

    Args:
        steps: n ≥ 0; each costs one response.
        transform: Φ of ω = exp(Φ/β); increasing.
        beta: β > 0 of ω. 1/(N−1) with Φ = log imitates best-of-N.

    Raises:
        ValueError: on a negative number of steps, or a β that is not positive.

    Reference:
        Sample, Don't Search: Rethinking Test-Time Alignment for Language Models (arXiv:2504.03790).

    Example:
        >>> from infalign.quantile.procedures import Uniform
        >>> chain = MetropolisHastings(steps=200, beta=1 / 3)
        >>> round(float(chain.decoded_cdf(Uniform(), 0.5)), 6) == 0.5**4
        True
    """

    steps: int
    """n."""
    transform: Transform = LOG
    """Φ."""
    beta: float = 1 / 3
    """β."""

    def __post_init__(self) -> None:
        if self.steps != int(self.steps) or not 0 <= self.steps <= LONGEST:
            raise ValueError(
                f"steps is {self.steps}; a chain makes a whole number of steps, from 0 to "
                f"{LONGEST:,}."
            )
        refuse_beta(self.beta)

    @property
    def name(self) -> str:
        return f"mh({self.steps}; {self.transform.name}/{self.beta:.3g})"

    @property
    def candidates(self) -> int:
        return self.steps + 1

    def decoded_density(self, mesh: Mesh, density: np.ndarray) -> np.ndarray:
        decaying = self._decaying(mesh)
        refused = mesh.below(density) - decaying.below(density)
        p = density
        for _ in range(self.steps):
            p = density * (mesh.below(p) + decaying.above(p)) + p * refused
        return p

    def first_variation(self, mesh: Mesh, density: np.ndarray, worth: np.ndarray) -> np.ndarray:
        decaying = self._decaying(mesh)
        refused, laws, arrivals = mesh.below(density) - decaying.below(density), [density], []
        for _ in range(self.steps):
            arrivals.append(mesh.below(laws[-1]) + decaying.above(laws[-1]))
            laws.append(density * arrivals[-1] + laws[-1] * refused)
        later, psi = np.broadcast_to(worth, density.shape), np.zeros_like(density)
        for p, arrival in zip(laws[-2::-1], arrivals[::-1], strict=True):
            # The adjoint: what a state is worth one step earlier, and what a proposal adds.
            psi = psi + later * arrival + mesh.above(later * p) - decaying.above(later * p)
            onward = mesh.above(later * density) + decaying.below(later * density)
            later = onward + later * refused
        return psi + later

    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        quantiles = refuse_candidates(self, quantiles)
        weight, log_odds = self._log_weight(quantiles), np.log(rng.random(quantiles.shape))
        now, state = weight[..., 0], np.zeros(quantiles.shape[:-1], dtype=int)
        for step in range(1, self.candidates):
            with np.errstate(invalid="ignore"):  # −∞ − −∞ where Φ(0) = −∞: stay
                is_accepted = log_odds[..., step] < weight[..., step] - now
            now = np.where(is_accepted, weight[..., step], now)
            state = np.where(is_accepted, step, state)
        return state

    def _log_weight(self, quantiles: np.ndarray) -> np.ndarray:
        return self.transform(quantiles) / self.beta

    def _decaying(self, mesh: Mesh) -> Decaying:
        kept = mesh.__dict__.setdefault("_decaying", {})  # as long as the mesh they belong to
        if self not in kept:
            kept[self] = Decaying(mesh, self._log_weight(mesh.quantiles))
        return kept[self]
