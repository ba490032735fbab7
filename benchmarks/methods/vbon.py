"""Variational best-of-N."""

import dataclasses
from typing import final

import numpy as np

from benchmarks.methods.method import Method, regularised

__all__ = ["VBoN"]


@final
@dataclasses.dataclass(frozen=True)
class VBoN(Method):
    """Maximises E_π[(N−1)·log F̂(r)] − KL(π‖π_ref), the paper's lower bound.

    F̂ is the plain share of reference rollouts with no more reward; a posterior mean of log u, as
    :class:`Transformed` takes, would give rare ranks less. Optimum: π_ref·F̂^(N−1)/Z. It is the
    best-of-N law where rewards are continuous. A new response below all K rollouts has F̂ = 0; it
    is taken for half a rollout, since nothing trains on −∞.

    Reference: Variational Best-of-N Alignment (arXiv:2407.06057)
    """

    n: float
    """N > 1; may be fractional."""

    def tables(self, store):
        upto = store.rewards[:, None, :] <= store.rewards[:, :, None]
        share = (upto * store.masses[:, None, :]).sum(-1)
        if store.k is not None:
            share = np.maximum(share, 0.5 / store.k)
        return {"phi": (self.n - 1) * np.log(share)}

    def loss(self, log_ratio, reference, tables):
        return regularised(log_ratio, reference, tables["phi"])
