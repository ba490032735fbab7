"""InfAlign: reward → quantile → Φ, then ordinary KL-regularised RL."""

import dataclasses
from typing import final

from benchmarks.methods.method import Reinforced
from infalign.quantile.transforms import Transform

__all__ = ["Transformed"]


@final
@dataclasses.dataclass(frozen=True)
class Transformed(Reinforced):
    """Trains on Φ(u). With Φ(u) = u it is calibration alone; with Φ optimal, InfAlign-CTRL.

    Reference: InfAlign (arXiv:2412.19792)
    """

    transform: Transform
    """Φ."""
    kl: float
    """Wanted mean KL of the optimum. Nats."""

    def training_rewards(self, store):
        return store.training_rewards(self.transform)
