"""BoNBoN: imitate the best of n, and tell it from the worst of n by what best-of-n would say."""

import dataclasses
from typing import final

import numpy as np
import torch

from benchmarks.methods.best_of_draws import best_and_worst
from benchmarks.methods.method import Method

__all__ = ["BoNBoN"]


@final
@dataclasses.dataclass(frozen=True)
class BoNBoN(Method):
    """α·E[−log π(best)] + (1−α)·E[(s(best) − s(worst) − 1/(2β*))²], s = log(π/π_ref).

    1/(2β*) = (n−1)·Σ_{k<n} 1/k is the mean of s(best) − s(worst) under the best-of-n law; so β is
    no longer free. Optimum: at α = 1 the best-of-n law (its KL is with :class:`RAFT`). At the
    paper's α the second term rules, and the best-of-n law makes the mean of its bracket zero, not
    its square least. The minimiser of that term solves a linear system, in which a response is held
    against both extremes as often as it is one of them: exp(2u) at n = 2; at large n a step at the
    median. On many equally likely responses the minimiser of both has KL 0.15, 0.60, 0.85, 0.88,
    1.01 at n = 2, 3, 4, 8, 24, and best-of-n 0.19, 0.43, 0.64, 1.20, 2.22.

    Reference: BoNBoN Alignment (arXiv:2406.00832)
    """

    n: int
    """Responses of which best and worst make a pair. > 1."""
    alpha: float = 0.005
    """Weight of imitation."""

    @property
    def margin(self) -> float:
        """1/(2β*). Nats."""
        return float((self.n - 1) * (1 / np.arange(1, self.n)).sum())

    def tables(self, store):
        return {"pairs": best_and_worst(store, self.n)}

    def loss(self, log_ratio, reference, tables):
        pairs = tables["pairs"]
        best, worst = pairs.sum(-1), pairs.sum(-2)
        across = torch.einsum("pi,pij,pj->p", log_ratio, pairs, log_ratio)
        squares = ((best + worst) * log_ratio**2).sum(-1) - 2 * across
        gap = ((best - worst) * log_ratio).sum(-1)
        contrast = squares - 2 * self.margin * gap + self.margin**2
        imitation = -(best * log_ratio).sum(-1)  # log π − log π_ref: the gradient of log π
        return self.alpha * imitation + (1 - self.alpha) * contrast
