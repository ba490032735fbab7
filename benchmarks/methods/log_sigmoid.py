"""The log-sigmoid of the reward's lead over a reference value."""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float

from benchmarks.arena.store import Store
from benchmarks.methods.method import Reinforced

__all__ = ["LogSigmoid"]


@final
@dataclasses.dataclass(frozen=True)
class LogSigmoid(Reinforced):
    """Φ = log σ(r − r_ref(x)): log of the chance to be preferred to an answer worth r_ref.

    Optimum: π_ref·σ(r − r_ref)^(1/β)/Z. Concave: little is gained above r_ref. It takes r in the
    logits of a Bradley–Terry model, so unlike a quantile it depends on the reward's unit. r_ref is
    a quantile of the reference's rewards to the prompt, high enough that it counts as good.

    Reference: Transforming and Combining Rewards for Aligning LLMs (arXiv:2402.00742)
    """

    kl: float
    """Wanted mean KL of the optimum. Nats."""
    quantile: float = 0.85
    """Where among the reference's rewards r_ref lies."""

    def training_rewards(self, store):
        return -np.logaddexp(0.0, -(store.rewards - self.reference_reward(store)))

    def reference_reward(self, store: Store) -> Float[np.ndarray, "P 1"]:
        """r_ref of each prompt: the smallest reward with at least `quantile` mass up to it."""
        order = np.argsort(store.rewards, axis=1, kind="stable")
        cdf = np.cumsum(np.take_along_axis(store.masses, order, 1), axis=1)
        place = np.argmax(cdf >= self.quantile - 1e-12, axis=1)[:, None]
        return np.take_along_axis(np.take_along_axis(store.rewards, order, 1), place, 1)
