"""The exact gradient, where every response can be listed: no sampling noise at all.

Right for tabular policies and for language models with responses of one token. The objective and
its distance from the optimum are exact sums, so what is left is optimisation alone.
"""

import dataclasses
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.training.descent import Descent, descend, identifying, numpy_of, passes
from infalign.training.measure import law_row
from infalign.training.rewards import Scored
from infalign.training.solver import (
    Callback,
    EnumerablePolicy,
    Problem,
    Row,
    Solver,
    TrainingResult,
)

__all__ = ["Exact"]


@final
@dataclasses.dataclass(frozen=True)
class Exact(Solver):
    """Ascends E_π[Φ]/β − KL(π‖π_ref) by its exact gradient. Needs an EnumerablePolicy.

    The log's `gap` is KL(π‖π*) = log Z − (E_π[Φ]/β − KL(π‖π_ref)), the distance from the
    optimum in nats; `kl`, `training_reward` and `quantile` are exact too.
    """

    descent: Descent = dataclasses.field(default_factory=Descent)
    """How steps are taken."""
    prompts_per_pass: int = 64
    """Prompts in one forward and backward pass: memory, not mathematics."""

    def train(
        self,
        policy: EnumerablePolicy,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        # Responses and reference never change: score them once, not in every step.
        responses = policy.responses(problem.texts)
        scored = problem.rewards.score(problem.ids, problem.texts, responses)
        reference = policy.reference_law(problem.texts)
        row_of = {prompt_id: row for row, prompt_id in enumerate(problem.ids)}

        def accumulate(batch: Problem, rng: np.random.Generator) -> Row:
            rows = [row_of[prompt_id] for prompt_id in batch.ids]
            return self._accumulate(policy, batch, scored.rows(rows), reference[rows])

        return descend(
            self.descent,
            policy.module,
            problem,
            accumulate,
            settings={"solver": "exact", **identifying(self)},
            directory=directory,
            callback=callback,
            rng=rng,
        )

    def _accumulate(
        self,
        policy: EnumerablePolicy,
        batch: Problem,
        scored: Scored,
        reference: Float[np.ndarray, "P C"],
    ) -> Row:
        import torch

        laws = []
        for rows in passes(len(batch.prompts), self.prompts_per_pass):
            texts = batch.texts[rows]
            log_law = policy.log_law(texts)
            law = log_law.exp()
            # A response of reference mass 0 has mass 0 under every policy and adds nothing.
            possible = torch.as_tensor(reference[rows] > 0, device=law.device)
            log_reference = torch.as_tensor(
                np.log(np.where(reference[rows] > 0, reference[rows], 1.0)),
                dtype=law.dtype,
                device=law.device,
            )
            phi = torch.as_tensor(
                scored.training_rewards[rows] / batch.beta, dtype=law.dtype, device=law.device
            )
            log_ratio = torch.where(possible, log_law - log_reference, 0.0)
            objective = (torch.where(possible, law, 0.0) * (phi - log_ratio)).sum()
            (-objective / len(batch.prompts)).backward()
            laws.append(numpy_of(law))
        return law_row(np.concatenate(laws), reference, scored, batch)
