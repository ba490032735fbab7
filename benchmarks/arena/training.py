"""Moving a policy by a method's loss: the same steps, batches and optimiser for every method."""

import dataclasses
from pathlib import Path
from typing import Any, final

import numpy as np

from benchmarks.arena.store import Store
from benchmarks.arena.world import World
from benchmarks.methods.method import Method
from infalign.training import Descent, EnumeratedReward, Problem, Solver, TrainingResult
from infalign.training.descent import descend, identifying, numpy_of
from infalign.training.solver import Callback, Row

__all__ = ["ListedLoss", "problem_of", "train"]


@final
@dataclasses.dataclass(frozen=True)
class ListedLoss(Solver):
    """Minimises a method's loss on listed responses. Needs an EnumerablePolicy."""

    method: Method
    """What is minimised."""
    store: Store
    """What it learns from; rows in the order of the problem's prompts."""
    descent: Descent
    """How steps are taken."""

    def train(
        self,
        policy: Any,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        import torch

        tables = {name: torch.as_tensor(t) for name, t in self.method.tables(self.store).items()}
        row_of = {prompt_id: row for row, prompt_id in enumerate(problem.ids)}

        def accumulate(batch: Problem, rng: np.random.Generator) -> Row:
            rows = torch.tensor([row_of[prompt_id] for prompt_id in batch.ids])
            log_law = policy.log_law(batch.texts)
            device, dtype = log_law.device, log_law.dtype
            reference = torch.as_tensor(policy.reference_law(batch.texts)).to(device, dtype)
            log_ratio = log_law - reference.log()
            given = {name: table[rows].to(device, dtype) for name, table in tables.items()}
            loss = self.method.loss(log_ratio, reference, given).mean()
            loss.backward()
            kl = (log_law.exp() * log_ratio).sum(-1).mean()
            return {"loss": float(loss.detach()), "kl": float(numpy_of(kl))}

        return descend(
            self.descent,
            policy.module,
            problem,
            accumulate,
            settings={"solver": "listed loss", "descent": identifying(_Only(self.descent))},
            directory=directory,
            callback=callback,
            rng=rng,
        )


@dataclasses.dataclass(frozen=True)
class _Only:
    """A solver's settings without its arrays."""

    descent: Descent


def problem_of(world: World, store: Store) -> Problem:
    """The training prompts with their store, in the house's terms. Its Φ is the reward itself."""
    prompts = world.prompts[: world.trained]
    reward = EnumeratedReward(
        tuple(prompt.id for prompt in prompts),
        world.responses[: world.trained],
        store.masses,
        store.rewards,
        store.rewards,
    )
    return Problem(prompts, reward, beta=1.0)


def train(
    world: World, method: Method, seed: int, callback: Callback | None = None
) -> tuple[np.ndarray, TrainingResult]:
    """Trains a fresh policy; returns its law over all prompts, "P C", and the log."""
    store = world.store(seed)
    schedule = world.schedule
    descent = Descent(
        steps=schedule.steps,
        learning_rate=schedule.learning_rate,
        schedule="cosine",
        warmup=min(5, schedule.steps // 2),
        prompts_per_step=schedule.prompts_per_step,
    )
    policy = world.policy(seed)
    solver = ListedLoss(method, store, descent)
    rng = np.random.default_rng([seed, 1])
    result = solver.train(policy, problem_of(world, store), callback=callback, rng=rng)
    return law_of(policy, world), result


def law_of(policy: Any, world: World, size: int = 64) -> np.ndarray:
    """The policy's law over every prompt's responses, "P C"."""
    import torch

    texts = [prompt.text for prompt in world.prompts]
    with torch.no_grad():
        parts = [
            numpy_of(policy.log_law(texts[start : start + size]).exp())
            for start in range(0, len(texts), size)
        ]
    return np.concatenate(parts)
