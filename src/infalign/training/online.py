"""Online: sample from the policy, score, and move towards what scored above its siblings.

REINFORCE with a leave-one-out baseline on Φ(u)/β − log(π/π_ref), the KL summed over the whole
response and inside the reward. At the optimum this value is the same for every response (it is
log Z), so all advantages and with them the gradient noise vanish: a constant learning rate
converges. Dividing by a group's standard deviation, as is common, spoils it. Dividing Φ alone
undoes its scale, on which β and so the optimum depend; dividing the whole value keeps the optimum
but blows its vanishing noise up again.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from jaxtyping import Float

from infalign.training.descent import Descent, descend, identifying, numpy_of, passes
from infalign.training.measure import sample_row
from infalign.training.solver import Callback, Problem, Row, Solver, TrainablePolicy, TrainingResult

if TYPE_CHECKING:
    import torch

__all__ = ["Online"]


@final
@dataclasses.dataclass(frozen=True)
class Online(Solver):
    """REINFORCE leave-one-out on E_π[Φ]/β − KL(π‖π_ref). Needs a TrainablePolicy.

    Reference: "Back to Basics: Revisiting REINFORCE Style Optimization" (arXiv:2402.14740).
    """

    descent: Descent = dataclasses.field(default_factory=Descent)
    """How steps are taken."""
    k: int = 8
    """Responses sampled to each prompt in each step. ≥ 2."""
    kl: Literal["k1", "rao_blackwell"] = "k1"
    """How the KL's gradient is estimated. `k1`: from the sampled responses, as part of the reward;
    without noise at the optimum. `rao_blackwell`: from the exact KL of next-token laws along them;
    less noise far from the optimum but not at it; needs
    `policy.differentiable_scores(prompts, responses)` with `log_prob` and `kl`, "P K"."""
    prompts_per_pass: int = 8
    """Prompts in one forward and backward pass: memory, not mathematics."""

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(
                f"k is {self.k}; a leave-one-out baseline needs at least 2 responses per prompt."
            )

    def train(
        self,
        policy: TrainablePolicy,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        if self.kl == "rao_blackwell" and not hasattr(policy, "differentiable_scores"):
            raise TypeError(
                f"kl='rao_blackwell' needs a policy with differentiable_scores; "
                f"{type(policy).__name__} has none. Use kl='k1'."
            )

        def accumulate(batch: Problem, rng: np.random.Generator) -> Row:
            return self._accumulate(policy, batch, rng)

        return descend(
            self.descent,
            policy.module,
            problem,
            accumulate,
            settings={"solver": "online", **identifying(self)},
            directory=directory,
            callback=callback,
            rng=rng,
        )

    def _accumulate(self, policy: Any, batch: Problem, rng: np.random.Generator) -> Row:
        responses = policy.sample(batch.texts, self.k, rng)
        texts = [[response.text for response in row] for row in responses]
        scored = batch.rewards.score(batch.ids, batch.texts, texts)
        reference = policy.reference_log_prob(batch.texts, responses)
        phi = scored.training_rewards / batch.beta
        log_ratios = []
        for rows in passes(len(batch.prompts), self.prompts_per_pass):
            given = batch.texts[rows], responses[rows]
            if self.kl == "k1":
                log_prob = policy.differentiable_log_prob(*given)
                log_ratio = numpy_of(log_prob) - reference[rows]
                loss = _reinforce(phi[rows] - log_ratio, log_prob)
            else:
                scores = policy.differentiable_scores(*given)
                log_ratio = numpy_of(scores.log_prob) - reference[rows]
                loss = _reinforce(phi[rows] - numpy_of(scores.kl), scores.log_prob)
                loss = loss + scores.kl.mean(1).sum()
            (loss / len(batch.prompts)).backward()
            log_ratios.append(log_ratio)
        return sample_row(np.concatenate(log_ratios), scored, batch)


def _reinforce(value: Float[np.ndarray, "P K"], log_prob: "torch.Tensor") -> "torch.Tensor":
    """−Σ_prompts mean_k A_k·log π_k with A_k = v_k − mean of the other v: leave-one-out."""
    import torch

    k = value.shape[1]
    advantage = (value - value.mean(1, keepdims=True)) * k / (k - 1)
    weight = torch.as_tensor(advantage, dtype=log_prob.dtype, device=log_prob.device)
    return -(weight * log_prob).mean(1).sum()
