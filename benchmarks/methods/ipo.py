"""IPO on pairs of reference responses, ranked by reward."""

import dataclasses
from typing import final

from benchmarks.methods.method import Method
from benchmarks.methods.pairs import preferences
from infalign.quantile.tilting import beta_for_atoms_kl

__all__ = ["IPO"]


@final
@dataclasses.dataclass(frozen=True)
class IPO(Method):
    """E over pairs y, y′ of π_ref: (s(y) − s(y′) − (p − ½)/τ)², with s = log(π/π_ref).

    p = 1 where y has more reward, ½ where they tie. It differs by a constant from the published
    (s_w − s_l − 1/(2τ))² of a pair's winner and loser. Optimum: since the mean of p over y′ is the
    quantile u, π_ref·exp(u/τ)/Z: the tilt of calibration alone, at its own KL coefficient τ. τ is
    the one at which that tilt of the store has mean KL `kl`.

    Reference: A General Theoretical Paradigm to Understand Learning from Preferences
    (arXiv:2310.12036)
    """

    kl: float
    """Wanted mean KL of the optimum. Nats."""

    def tables(self, store):
        u = store.quantiles()
        tau = beta_for_atoms_kl(store.masses, u, self.kl)
        lead = preferences(store.rewards) - 0.5
        pairs = store.masses[:, :, None] * store.masses[:, None, :]
        least = (pairs * lead**2).sum((1, 2)) / tau**2
        return {"masses": store.masses, "pull": (u - 0.5) / tau, "least": least}

    def loss(self, log_ratio, reference, tables):
        # The square, summed by parts: over pairs, the mean of p − ½ given one of them is u − ½.
        mean = (tables["masses"] * log_ratio).sum(-1, keepdim=True)
        centred = log_ratio - mean
        squares = centred**2 - 2 * tables["pull"] * centred
        return 2 * (tables["masses"] * squares).sum(-1) + tables["least"]
