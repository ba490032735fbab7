"""Ordinary RLHF: the reward itself."""

import dataclasses
from typing import final

from benchmarks.methods.method import Reinforced

__all__ = ["Raw"]


@final
@dataclasses.dataclass(frozen=True)
class Raw(Reinforced):
    """Maximises E_π[r] − β·KL, one β for all prompts: REINFORCE leave-one-out on the reward.

    Optimum: π_ref·exp(r/β)/Z. A prompt whose rewards spread wider is moved further.

    Reference: Back to Basics: Revisiting REINFORCE Style Optimization (arXiv:2402.14740)
    """

    kl: float
    """Wanted mean KL of the optimum. Nats."""

    def training_rewards(self, store):
        return store.rewards
