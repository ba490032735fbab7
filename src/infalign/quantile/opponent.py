"""Opponent: what an answer is up against, the reference's decoded answer as the judge sees it.

The win rate of any policy under any procedure is W = ∫ h dT(F), with h(u) the chance that an answer
of quantile u is judged better than the reference's decoded answer, ties half. Everything that is
not the policy's own doing is in h:

- the same reward selects and judges: h is the CDF of the decoded reference;
- **agreement** ρ < 1: another, gold reward judges. Its quantiles v follow those of the selecting
  reward u by a Gaussian copula of rank correlation ρ: z_v = r·z_u + √(1−r²)·ε, z the normal scores
  and r = 2·sin(πρ/6). Then v beats v′ with probability N(r(z_u − z_u′)/√(2(1−r²)));
- **ties**: on a tie of the selecting reward nothing is known but the tie, so h is averaged over it.
"""

import dataclasses
from functools import cached_property, lru_cache
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special

from infalign.quantile.agreement import copula_correlation
from infalign.quantile.mesh import FINE, NO_TIES, Mesh
from infalign.quantile.panels import panel_rule
from infalign.quantile.procedures import BestOfN, Procedure, RankProcedure, WorstOfN
from infalign.quantile.ties import Ties

__all__ = ["Opponent"]

REACH = 9.0
"""Standard deviations of the judges' noise that are integrated over: the rest has mass 1e-19."""
BEST_PANELS, PANELS = 10, 40
"""Of the noise between two breaks: the best of any N is smooth in z, a median of many steep."""


@final
@dataclasses.dataclass(frozen=True)
class Opponent:
    """The reference's decoded answer, as judged.

    Args:
        procedure: decodes the reference.
        agreement: ρ in [−1,1], Spearman's correlation of the selecting and the judging reward's
            quantiles. 1: the same reward.
        ties: where the selecting reward is equal.

    Raises:
        ValueError: if ρ lies outside [−1,1].

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> u = np.array([0.5])
        >>> float(Opponent(BestOfN(2)).loss(u, 1 - u)[0])
        0.75
        >>> coin = Opponent(BestOfN(2), agreement=0.0)
        >>> float(coin.loss(u, 1 - u)[0])
        0.5
    """

    procedure: Procedure
    """Decodes the reference."""
    agreement: float = 1.0
    """ρ."""
    ties: Ties = NO_TIES
    """Of the selecting reward."""

    def __post_init__(self) -> None:
        copula_correlation(self.agreement)

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which h kinks or jumps."""
        return (*self.procedure.breaks, *self.ties.breaks)

    @property
    def is_plain(self) -> bool:
        """Whether h is simply the CDF of the decoded reference."""
        return self.agreement == 1 and not self.ties

    def loss(
        self, u: Float[np.ndarray, "..."], x: Float[np.ndarray, "..."]
    ) -> Float[np.ndarray, "..."]:
        """1 − h(u): chance to be judged worse. u and x = 1 − u, both with all their digits."""
        u, x = np.asarray(u, dtype=float), np.asarray(x, dtype=float)
        untied = self._untied(u, x)
        return self.ties.replaced(u, untied, self._tied_losses) if self.ties else untied

    @cached_property
    def _tied_losses(self) -> np.ndarray:
        return self.ties.averages(lambda u: self._untied(u, 1 - u), self.procedure.breaks)

    def _untied(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        r = copula_correlation(self.agreement)
        if r == 0:
            return np.full_like(u, 0.5)
        if r == 1:
            return self._survival(u, x)
        if r == -1:  # the worst for the selecting reward is the best for the judge
            return 1 - self._survival(u, x)
        below = self._noisy(u, x, np.sqrt(2 * (1 - r**2)) / abs(r))
        return below if r > 0 else 1 - below

    def _noisy(self, u: np.ndarray, x: np.ndarray, noise: float) -> np.ndarray:
        """E[survival(z_u + noise·η)] over normal η: Gauss–Legendre between the breaks."""
        z = np.where(u < 0.5, special.ndtri(u), -special.ndtri(x)).ravel()[:, None]
        with np.errstate(invalid="ignore"):
            # Beyond ±REACH the reference's answer is surely worse or better: cut there too, as a
            # judge who hardly agrees has noise that is wide beside it.
            at = [-REACH, *special.ndtri(sorted(set(self.breaks))), REACH]
            at_breaks = (np.array(at)[None, :] - z) / noise
        ends = np.full((len(z), 1), REACH)
        cuts = np.concatenate([-ends, np.clip(at_breaks, -REACH, REACH), ends], axis=1)
        total = np.zeros(len(z))
        is_smooth = isinstance(self.procedure, BestOfN | WorstOfN) or self.procedure.candidates < 5
        panels = np.linspace(0, 1, (BEST_PANELS if is_smooth else PANELS) + 1)
        place, share = (part.ravel() for part in panel_rule(panels))
        for low, high in zip(cuts.T[:-1], cuts.T[1:], strict=True):
            eta = low[:, None] + (high - low)[:, None] * place
            weight = (high - low)[:, None] * share * np.exp(-(eta**2) / 2) / np.sqrt(2 * np.pi)
            moved = z + noise * eta
            total += (weight * self._survival(special.ndtr(moved), special.ndtr(-moved))).sum(1)
        return total.reshape(u.shape)

    def _survival(self, u: np.ndarray, x: np.ndarray) -> np.ndarray:
        """1 − CDF of the decoded reference: a chord on each tie, where chance tells apart."""
        if isinstance(self.procedure, RankProcedure):
            survival = self.procedure.rank_survival(x)
            if not self.ties:
                return survival
            starts, ends = self.ties.starts, self.ties.ends
            top, bottom = (self.procedure.rank_survival(1 - edge) for edge in (starts, ends))
            tie = self.ties.index(u)
            chord = top[tie] + (bottom - top)[tie] * (u - starts[tie]) / (ends - starts)[tie]
            return np.where(tie >= 0, chord, survival)
        mesh, survival = _decoded_reference(self.procedure, self.ties)
        return np.clip(mesh.interpolated(survival, u, x), 0.0, 1.0)


@lru_cache(maxsize=64)
def _decoded_reference(procedure: Procedure, ties: Ties) -> tuple[Mesh, np.ndarray]:
    mesh = Mesh.of(FINE, procedure.breaks, ties)
    decoded = procedure.decoded_density(mesh, np.ones_like(mesh.u))
    return mesh, mesh.above(decoded)
