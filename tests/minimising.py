"""Policies with a free logit for each listed response, at the least of a method's loss."""

import dataclasses

import numpy as np
import torch
from benchmarks.arena.store import Store
from benchmarks.arena.training import train
from benchmarks.arena.world import World
from benchmarks.methods import Method
from scipy import optimize, special

from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms

__all__ = [
    "APART",
    "REACHED",
    "distance",
    "minimised",
    "quantiles",
    "stepped",
    "tilt",
    "value",
]

REACHED = 1e-4
"""Largest total variation of a minimised table to its optimum: losses are summed in float64 and
minimised until no step lessens them. Optima of different methods are APART or more."""
APART = 0.02


def minimised(world: World, method: Method, seed: int = 0) -> np.ndarray:
    """The law "P C" at which the loss is least, by L-BFGS from the reference."""
    store = world.store(seed)
    tables = {name: torch.as_tensor(table) for name, table in method.tables(store).items()}
    reference = torch.as_tensor(world.law)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        logits = torch.tensor(flat.reshape(world.law.shape), requires_grad=True)
        log_law = torch.log_softmax(reference.log() + logits, -1)
        loss = method.loss(log_law - reference.log(), reference, tables).sum()
        loss.backward()
        return float(loss.detach()), logits.grad.numpy().ravel()

    options = {"maxiter": 3000, "maxfun": 3000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    start = np.zeros(world.law.size)
    found = optimize.minimize(
        loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options
    )
    return special.softmax(np.log(world.law) + found.x.reshape(world.law.shape), axis=1)


def stepped(world: World, method: Method, steps: int) -> np.ndarray:
    """The law "P C" after some steps of the arena's own training."""
    schedule = dataclasses.replace(world.schedule, steps=steps)
    return train(dataclasses.replace(world, schedule=schedule), method, seed=0)[0]


def value(method: Method, store: Store, log_ratio: np.ndarray) -> np.ndarray:
    """Loss at some log-ratios."""
    tables = {name: torch.as_tensor(table) for name, table in method.tables(store).items()}
    reference = torch.as_tensor(store.masses)
    return method.loss(torch.as_tensor(log_ratio), reference, tables).numpy()


def distance(law: np.ndarray, other: np.ndarray) -> float:
    """Largest total variation over prompts."""
    return float(np.abs(law - other).sum(1).max() / 2)


def tilt(world: World, training_rewards: np.ndarray, kl: float) -> np.ndarray:
    """π_ref·exp(Φ/β)/Z at mean KL `kl`."""
    beta = beta_for_atoms_kl(world.law, training_rewards, kl)
    return tilt_atoms(world.law, training_rewards, beta)


def quantiles(world: World) -> np.ndarray:
    """u by its definition, ties half."""
    rewards = world.judges["training"]
    lead = np.sign(rewards[:, :, None] - rewards[:, None, :])
    return ((1 + lead) / 2 * world.law[:, None, :]).sum(-1)
