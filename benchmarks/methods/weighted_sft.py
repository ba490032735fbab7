"""Imitating reference responses, each weighted by its exponentiated reward."""

import dataclasses
from typing import final

from benchmarks.methods.method import Method
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms

__all__ = ["WeightedSFT"]


@final
@dataclasses.dataclass(frozen=True)
class WeightedSFT(Method):
    """Maximum likelihood on reference responses weighted by w = exp(r/τ)/Z: −Σ_c m_c·w_c·log π_c.

    Optimum: π_ref·exp(r/τ)/Z where the law is known, as for RL on the raw reward with β = τ; the
    loss is KL(optimum‖π) instead of KL(π‖optimum). From K rollouts it is the weighted rollouts
    themselves: what was not drawn is given nothing. τ is the one at which the weighted store has
    mean KL `kl`.

    Reference: Advantage-Weighted Regression (arXiv:1910.00177)
    """

    kl: float
    """Wanted mean KL of the optimum. Nats."""

    def tables(self, store):
        tau = beta_for_atoms_kl(store.masses, store.rewards, self.kl)
        return {"target": tilt_atoms(store.masses, store.rewards, tau)}

    def loss(self, log_ratio, reference, tables):
        # log π − log π_ref in place of log π: the same gradient.
        return -(tables["target"] * log_ratio).sum(-1)
