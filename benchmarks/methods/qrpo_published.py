"""QRPO as its paper has it: the empirical CDF and the integral over [0,1]."""

import dataclasses
from typing import final

from benchmarks.methods.method import Method
from infalign.quantile.tilting import beta_for_kl
from infalign.quantile.transforms import Transform

__all__ = ["PublishedQRPO"]


@final
@dataclasses.dataclass(frozen=True)
class PublishedQRPO(Method):
    """E over π_ref of (Φ(F̂)/β − log Z − s)², s = log(π/π_ref), Z = ∫₀¹ exp(Φ/β).

    F̂ is the share of the reference's rollouts with no more reward, itself included. Z is that of a
    uniform quantile, which F̂ is not: it is never 0, often 1, and shared by ties. So the target is
    no law, and since π is one, its minimiser is not the tilt: with t the target, s = t − λ·e^s at
    every response, λ what makes the masses sum to 1. β is the one at which the *continuous* tilt
    has KL `kl`.

    Reference: Quantile Reward Policy Optimization (arXiv:2507.08068)
    """

    transform: Transform
    """Φ."""
    kl: float
    """KL of the continuous tilt. Nats."""

    def tables(self, store):
        upto = store.rewards[:, None, :] <= store.rewards[:, :, None]
        share = (upto * store.masses[:, None, :]).sum(-1).clip(0.0, 1.0)
        beta = beta_for_kl(self.transform, self.kl)
        # A response that was not drawn has no mass below; whatever its target, it weighs nothing.
        share[store.masses <= 0] = 1.0
        target = self.transform(share) / beta - self.transform.log_partition(beta)
        return {"masses": store.masses, "target": target}

    def loss(self, log_ratio, reference, tables):
        return (tables["masses"] * (tables["target"] - log_ratio) ** 2).sum(-1)
