"""The policy gradient of what a decoded answer is worth."""

import dataclasses
from typing import Literal, final

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.arena.store import Store
from benchmarks.methods.decoded_worth import DecodedWorth
from benchmarks.methods.method import Method
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.win_rate import decoded_masses

__all__ = ["MaxAtN"]


@final
@dataclasses.dataclass(frozen=True)
class MaxAtN(Method):
    """Maximises E[h(answer)]/β − KL(π‖π_ref), the answer decoded from the policy's own responses.

    The exact expectation of leave-one-out max@N: the best (or whichever rank) of N responses is
    worth h, and a response's gradient is what it adds to that. `win rate`: h is the chance to beat
    the reference's decoded answer, u^N under best-of-N, so the inference-time win rate itself is
    ascended. `reward`: h = r, as published. Optimum: π_ref·exp(∇E[h]/β)/Z, the fixed point; with
    the win rate it is the largest at its KL (best-of-N; under worst-of-N one of several stationary
    points may be met). β is the one at which the fixed point on the store has mean KL `kl`; where
    there are several fixed points, training may end at another, with another KL.

    Reference: The Best of N Worlds (arXiv:2510.23393)
    """

    procedure: RankProcedure
    """Decodes both sides."""
    kl: float
    """Wanted mean KL of the optimum. Nats."""
    worth: Literal["win rate", "reward"] = "win rate"
    """What the answer is judged by."""

    def tables(self, store):
        worth = self.worth_of(store)
        beta = worth.beta_for_kl(store.masses, self.kl)
        return {"order": worth.order, "falls": worth.falls / beta}

    def worth_of(self, store: Store) -> DecodedWorth:
        """E[h] as a function of the law."""
        return DecodedWorth.of(self.procedure, store.rewards, self._judged(store))

    def _judged(self, store: Store) -> Float[np.ndarray, "P C"]:
        if self.worth == "reward":
            return store.rewards
        theirs = decoded_masses(store.masses, store.rewards, self.procedure)
        lead = np.sign(store.rewards[:, :, None] - store.rewards[:, None, :])
        return ((1 + lead) / 2 * theirs[:, None, :]).sum(-1)

    def loss(self, log_ratio, reference, tables):
        law = reference * torch.exp(log_ratio)
        order = tables["order"].round().long().cpu().numpy()
        worth = DecodedWorth(self.procedure, order, tables["falls"].double().cpu().numpy())
        value, slope = map(torch.as_tensor, worth(law.detach().double().cpu().numpy()))
        value, slope = value.to(law), slope.to(law)
        gained = value + ((law - law.detach()) * slope).sum(-1)  # this value, that gradient
        return (law * log_ratio).sum(-1) - gained
