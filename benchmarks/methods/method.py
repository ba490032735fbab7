"""What a method is here: a loss on listed responses, given the reference's masses and rewards.

Whatever a method's paper samples is summed here instead: the loss is the expectation that the
paper estimates. So methods differ in what they aim at and in nothing else, and each has an optimum
on a table that its test asks of it.
"""

import abc
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.arena.store import Store
from infalign.quantile.tilting import beta_for_atoms_kl

__all__ = ["Method", "Reinforced", "Tables", "regularised"]

Tables = Mapping[str, np.ndarray]
"""Per prompt "P …" and computed once: what the loss reads beside the policy."""


class Method(abc.ABC):
    """A way of moving a policy. Settings only; frozen dataclasses."""

    @abc.abstractmethod
    def tables(self, store: Store) -> Tables:
        """What the loss needs of the store, one row per prompt; computed once, before training."""

    @abc.abstractmethod
    def loss(
        self,
        log_ratio: Float[torch.Tensor, "P C"],
        reference: Float[torch.Tensor, "P C"],
        tables: Mapping[str, torch.Tensor],
    ) -> Float[torch.Tensor, "P"]:
        """What is minimised at each prompt.

        Args:
            log_ratio: log(π/π_ref) of each listed response, with gradient. Nats.
            reference: π_ref of each, for methods that average over the policy's own responses.
            tables: rows of :meth:`tables`, as tensors.
        """


class Reinforced(Method):
    """KL-regularised RL on a training reward: maximises E_π[Φ]/β − KL(π‖π_ref).

    The exact expectation of what REINFORCE leave-one-out estimates. Its optimum is
    π_ref·exp(Φ/β)/Z. β is the one at which that optimum, on the store, has mean KL `kl`.
    """

    kl: float
    """Wanted mean KL of the optimum. Nats."""

    @abc.abstractmethod
    def training_rewards(self, store: Store) -> Float[np.ndarray, "P C"]:
        """Φ of each listed response, as a new one that the policy might give."""

    @final
    def beta(self, store: Store) -> float:
        """KL coefficient."""
        return float(beta_for_atoms_kl(store.masses, self.training_rewards(store), self.kl))

    @final
    def tables(self, store: Store) -> Tables:
        return {"phi": self.training_rewards(store) / self.beta(store)}

    @final
    def loss(self, log_ratio, reference, tables):
        return regularised(log_ratio, reference, tables["phi"])


def regularised(
    log_ratio: Float[torch.Tensor, "P C"],
    reference: Float[torch.Tensor, "P C"],
    phi: Float[torch.Tensor, "P C"],
) -> Float[torch.Tensor, "P"]:
    """KL(π‖π_ref) − E_π[Φ/β], summed over the policy's own responses; `phi` is Φ/β."""
    law = reference * torch.exp(log_ratio)
    return -(law * (phi - log_ratio)).sum(-1)
