"""Training on one store of rollouts: the same prompts, adapter, steps and responses per step.

Where a method's optimum is a known tilt of the rollouts, :class:`infalign.training.Fit` takes it.
Methods that are losses of their own (:mod:`benchmarks.methods`) are given the same rollouts here, a
few of each prompt at a time.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int

from benchmarks.arena.store import Store
from benchmarks.methods.method import Method
from infalign.training import Descent, Problem, Solver, TrainingResult
from infalign.training.descent import descend, numpy_of, passes
from infalign.training.fit import stored_log_prob
from infalign.training.rewards import TrainingReward
from infalign.training.solver import Callback, Row

__all__ = ["Paired", "StoredLoss", "StoredReward", "columns_of"]


@final
@dataclasses.dataclass(frozen=True)
class StoredReward(TrainingReward):
    """Training rewards of the stored rollouts alone, from whatever method made them."""

    ids: tuple[str, ...]
    """Of the prompts."""
    training_rewards: Float[np.ndarray, "P K"]
    """Φ of each rollout."""

    def score(self, prompt_ids, prompts, responses):
        raise ValueError("only stored rollouts have a training reward here; train offline.")

    def atoms(self, prompt_ids):
        row_of = {prompt_id: row for row, prompt_id in enumerate(self.ids)}
        chosen = self.training_rewards[[row_of[prompt_id] for prompt_id in prompt_ids]]
        return np.full(chosen.shape, 1 / chosen.shape[1]), chosen


@final
@dataclasses.dataclass(frozen=True)
class Paired(Method):
    """Regression on a known tilt by pairs: E over pairs of rollouts (s − s′ − (Φ − Φ′)/β)².

    s = log(π/π_ref); log Z cancels. Twice the variance of s − Φ/β over a prompt's rollouts, so its
    optimum is π_ref·exp(Φ/β)/Z; with Φ = u it is IPO. Unlike weighted likelihood it learns from
    rollouts of little weight, too, and no rollout is worth learning by heart.

    Reference: REBEL (arXiv:2404.16767), on one store of rollouts
    """

    phi: Float[np.ndarray, "P K"]
    """Φ/β of each rollout."""

    def tables(self, store):
        return {"masses": store.masses, "phi": self.phi}

    def loss(self, log_ratio, reference, tables):
        residual = log_ratio - tables["phi"]
        mean = (tables["masses"] * residual).sum(-1, keepdim=True)
        return 2 * (tables["masses"] * (residual - mean) ** 2).sum(-1)


@final
@dataclasses.dataclass(frozen=True)
class StoredLoss(Solver):
    """Minimises a method's loss on k of the K stored rollouts, drawn anew in every step."""

    method: Method
    """What is minimised."""
    store: Store
    """Rollouts as the method sees them; masses 1/K."""
    descent: Descent
    """How steps are taken."""
    k: int = 16
    """Rollouts of each prompt in one step, without replacement."""

    def train(
        self,
        policy: Any,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        tables = self.method.tables(self.store)
        rollouts, reference = problem.stored(), stored_log_prob(problem)
        row_of = {prompt_id: row for row, prompt_id in enumerate(problem.ids)}

        def accumulate(batch: Problem, rng: np.random.Generator) -> Row:
            import torch

            rows = np.array([row_of[prompt_id] for prompt_id in batch.ids])
            shape = (len(rows), self.store.rewards.shape[1])
            picks = rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)[:, : self.k]
            chosen = columns_of({name: table[rows] for name, table in tables.items()}, picks)
            total = []
            for part in passes(len(rows), 8):
                responses = [
                    [rollouts[row][pick] for pick in row_picks]
                    for row, row_picks in zip(rows[part], picks[part], strict=True)
                ]
                log_prob = policy.differentiable_log_prob(batch.texts[part], responses)
                before = np.take_along_axis(reference[rows[part]], picks[part], 1)
                given = {name: torch.as_tensor(table[part]) for name, table in chosen.items()}
                mass = torch.full(picks[part].shape, 1 / self.k, dtype=log_prob.dtype)
                loss = self.method.loss(log_prob - torch.as_tensor(before), mass, given)
                (loss.sum() / len(rows)).backward()
                total.append(numpy_of(loss))
            return {"loss": float(np.concatenate(total).mean())}

        return descend(
            self.descent,
            policy.module,
            problem,
            accumulate,
            settings={"solver": "stored loss"},
            directory=directory,
            callback=callback,
            rng=rng,
        )


def columns_of(
    tables: Mapping[str, np.ndarray], picks: Int[np.ndarray, "P k"]
) -> dict[str, np.ndarray]:
    """A method's tables of K responses, of k of them that were drawn uniformly.

    A table whose rows are laws is divided by the share that was drawn, so that sums over it are
    unbiased; one by pairs, "P K K", loses the same rows and columns.

    Example:
        >>> law, picks = np.array([[0.25, 0.25, 0.5]]), np.array([[0, 2]])
        >>> columns_of({"law": law}, picks)["law"].tolist()
        [[0.375, 0.75]]
    """
    found = {}
    rows = np.arange(len(picks))[:, None]
    for name, table in tables.items():
        if table.ndim == 3:
            found[name] = table[rows[:, :, None], picks[:, :, None], picks[:, None, :]]
            continue
        if table.ndim < 2 or table.shape[1] == 1:
            found[name] = table  # of the prompt, not of its responses
            continue
        is_law = bool((table >= 0).all()) and np.allclose(table.sum(1), 1)
        found[name] = table[rows, picks] * (table.shape[1] / picks.shape[1] if is_law else 1.0)
    return found
