"""Quantile regression of the log-ratio, with the sum that normalises it exactly."""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float

from benchmarks.arena.store import Store
from benchmarks.methods.method import Method
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.tilting import beta_for_atoms_kl
from infalign.quantile.transforms import Transform

__all__ = ["QRPO"]


@final
@dataclasses.dataclass(frozen=True)
class QRPO(Method):
    """E over π_ref of (Φ̄/β − log Z − s)², s = log(π/π_ref): QRPO as this library does it.

    Φ̄ is Φ averaged over what is known of a response's quantile: over its atom, or over the
    posterior given the other K−1 rollouts. log Z = log Σ_c m_c·exp(Φ̄_c/β) is the finite sum over
    the same responses, so the target is a law. Optimum where the law is known: π_ref·exp(Φ̄/β)/Z,
    at the β of mean KL `kl`. Square errors are in nats², that is, divided by β².

    Reference: Quantile Reward Policy Optimization (arXiv:2507.08068); finite K is ours.
    """

    transform: Transform
    """Φ."""
    kl: float
    """Wanted mean KL of the optimum. Nats."""

    def tables(self, store):
        training_rewards = self.training_rewards(store)
        scaled = training_rewards / beta_for_atoms_kl(store.masses, training_rewards, self.kl)
        top = scaled.max(1, keepdims=True)
        log_z = top + np.log((store.masses * np.exp(scaled - top)).sum(1, keepdims=True))
        return {"masses": store.masses, "target": scaled - log_z}

    def training_rewards(self, store: Store) -> Float[np.ndarray, "P C"]:
        """Φ̄ of each response of the store; of rollouts, among the others."""
        if store.k is None:
            return store.training_rewards(self.transform)
        ids = tuple(map(str, range(len(store.masses))))
        drawn = [np.repeat(r, n) for r, n in zip(store.rewards, store.counts, strict=True)]
        below, ties = EmpiricalCalibration(ids, np.stack(drawn)).ranks(ids, store.rewards)
        # A response that was not drawn leaves nothing out; it has no mass, so any rank will do.
        below = np.where(store.counts > 0, below, 0)
        ties = np.where(store.counts > 0, ties - 1, 0)
        return self.transform.posterior_mean(below, ties, store.k - 1)

    def loss(self, log_ratio, reference, tables):
        return (tables["masses"] * (tables["target"] - log_ratio) ** 2).sum(-1)
