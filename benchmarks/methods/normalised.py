"""The reward in standard deviations of each prompt's reference responses."""

import dataclasses
from typing import final

import numpy as np

from benchmarks.methods.method import Reinforced

__all__ = ["Normalised"]


@final
@dataclasses.dataclass(frozen=True)
class Normalised(Reinforced):
    """Φ = (r − mean_x)/sd_x, the scale of a prompt taken out as GRPO does; then as :class:`Raw`.

    Optimum: π_ref·exp(r/(β·sd_x))/Z. Here mean and sd are the reference's, known before training.
    GRPO takes them anew from each group of the policy's own responses, whose sd shrinks as the
    policy narrows, so that its β has no fixed meaning and its optimum no formula. A prompt whose
    rewards are all equal has Φ = 0.

    Reference: DeepSeekMath (arXiv:2402.03300)
    """

    kl: float
    """Wanted mean KL of the optimum. Nats."""

    def training_rewards(self, store):
        mean = (store.masses * store.rewards).sum(1, keepdims=True)
        centred = store.rewards - mean
        sd = np.sqrt((store.masses * centred**2).sum(1, keepdims=True))
        flat = sd <= 1e-9 * (1 + np.abs(mean))  # rounding must not become a reward
        return np.where(flat, 0.0, centred / np.where(flat, 1.0, sd))
