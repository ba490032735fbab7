"""Imitating the best of n reference responses."""

import dataclasses
from typing import final

from benchmarks.methods.best_of_draws import best_of
from benchmarks.methods.method import Method

__all__ = ["RAFT"]


@final
@dataclasses.dataclass(frozen=True)
class RAFT(Method):
    """Maximum likelihood on best-of-n picks: −Σ_c b_c·log π_c, b the best-of-n law.

    Optimum: b itself, of KL log n − (n−1)/n where rewards have no ties (0.19, 0.64, 1.20, 1.84 nats
    at n = 2, 4, 8, 16) and less where few responses carry the mass.

    Reference: RAFT (arXiv:2304.06767)
    """

    n: int
    """Responses of which the best is imitated."""

    def tables(self, store):
        return {"best": best_of(store, self.n)}

    def loss(self, log_ratio, reference, tables):
        # log π − log π_ref in place of log π: the same gradient.
        return -(tables["best"] * log_ratio).sum(-1)
