"""Online training on what the decoded answer wins, for procedures that ranks cannot express.

W(π) = P(the decoded answer of π beats the reference's), W − β·KL(π‖π_ref) is climbed by
REINFORCE. What a sample is worth to the answer is estimated from the samples themselves
(:mod:`.first_variation`) where a procedure draws whole responses: majority vote, soft best-of-N.
Where it goes on from beginnings (blocks, chains) each run credits its answer to all it drew,
compared with the other runs of the same prompt: ∇W = E[(h − h of others)·Σ_draws ∇log π(new
tokens | beginning)]. No transform is needed, and no theory of the procedure.

The KL term keeps its own leave-one-out mean. Centring both together would let a sample into its
own baseline, because subsets without i are in the estimate of every other sample.
"""

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from infalign.decoding.decode import on_text
from infalign.decoding.identity import procedure_identity
from infalign.decoding.text_procedure import TextProcedure
from infalign.decoding.tracing import Segment, Trace, answer_traced
from infalign.policies.counts import refuse_count
from infalign.prompts import Prompt
from infalign.protocols import Continuer
from infalign.quantile.procedures import Procedure
from infalign.training.descent import Descent, descend, identifying, numpy_of, passes
from infalign.training.first_variation import (
    Opponents,
    first_variation,
    pools_of,
)
from infalign.training.opponents import Judge, opponents_of
from infalign.training.solver import Callback, Problem, Row, Solver, TrainingResult

__all__ = ["OnlineDecoded"]


@final
@dataclasses.dataclass(frozen=True)
class OnlineDecoded(Solver):
    """REINFORCE on the win rate after decoding. Needs a TrainablePolicy.

    Of the problem's training reward only rewards and quantiles are used, not Φ; β is in win rate
    per nat. Nothing makes W concave: where it has several maxima, this finds one.

    The log's `win_rate` is W against the reference's answers at hand, which are the same in every
    step: for watching, not for claims. There is no `gap`, because the optimum is not known.

    Reference: ours; for best-of-N it is the exact gradient that "Pass@K Policy Optimization"
    (arXiv:2505.15201) estimates, on the worth of rewards instead of rewards.
    """

    procedure: TextProcedure | Procedure
    """How both sides are decoded."""
    descent: Descent = dataclasses.field(default_factory=Descent)
    """How steps are taken."""
    k: int = 8
    """Responses sampled to each prompt in each step; more than the procedure draws, if it draws
    whole responses. Where it goes on from beginnings they only estimate the KL, and runs draw
    their own. ≥ 2."""
    replays: int = 64
    """Subsets of the k on which the procedure is run, about; all where they are no more. ≥ 1."""
    runs: int = 4
    """Runs at each prompt in each step, of a procedure that goes on from beginnings. ≥ 2."""
    opponents: int = 32
    """Answers of the reference to each prompt at least, found once. Where the stored samples have
    fewer subsets, new ones are drawn. ≥ 1."""
    prompts_per_pass: int = 8
    """Prompts in one forward and backward pass: memory, not mathematics."""

    def __post_init__(self) -> None:
        least = {"k": 2, "replays": 1, "runs": 2, "opponents": 1, "prompts_per_pass": 1}
        for name, low in least.items():
            refuse_count(getattr(self, name), name, "training on what is decoded", least=low)
        decoded = on_text(self.procedure)
        if decoded.needs_gaps:
            raise ValueError(
                f"{decoded.name} fills gaps, and training credits what is written from left to "
                "right; choose a procedure that goes on from beginnings."
            )
        if not decoded.needs_beginnings and decoded.most >= self.k:
            raise ValueError(
                f"k is {self.k}, but {decoded.name} draws {decoded.most}; what a sample is worth "
                f"is seen where it is left out. At least {decoded.most + 1} samples are needed, "
                f"{2 * decoded.most} are good."
            )

    def check(self, policy: Any, prompts: Sequence[Prompt]) -> None:
        decoded = on_text(self.procedure)
        if not decoded.needs_beginnings:
            return
        takes = inspect.signature(policy.differentiable_log_prob).parameters
        if not isinstance(policy, Continuer) or "starts" not in takes:
            raise TypeError(
                f"{decoded.name} goes on from the beginning of a response; training through it "
                "needs a policy with continue_from and with differentiable_log_prob(prompts, "
                f"responses, starts). {type(policy).__name__} has not both; use CausalLM."
            )

    def train(
        self,
        policy: Any,
        problem: Problem,
        *,
        directory: Path | None = None,
        callback: Callback | None = None,
        rng: np.random.Generator,
    ) -> TrainingResult:
        self.check(policy, problem.prompts)
        decoded = on_text(self.procedure)
        seed = int(rng.integers(2**62))
        opponents = opponents_of(decoded, policy, problem, self.opponents, directory, seed)
        step = self._traced if decoded.needs_beginnings else self._replayed

        def accumulate(batch: Problem, rng: np.random.Generator) -> Row:
            return step(decoded, policy, batch, opponents, rng)

        return descend(
            self.descent,
            policy.module,
            problem,
            accumulate,
            settings={
                "solver": "online decoded",
                **identifying(self),
                "procedure": procedure_identity(decoded),
            },
            directory=directory,
            callback=callback,
            rng=rng,
        )

    def _replayed(
        self,
        procedure: TextProcedure,
        policy: Any,
        batch: Problem,
        opponents: Opponents,
        rng: np.random.Generator,
    ) -> Row:
        """Whole responses: credit to each by the subsets with it and those without it."""
        responses = policy.sample(batch.texts, self.k, rng)
        pools, rewards = pools_of(batch, responses)
        found = [first_variation(procedure, pool, opponents, self.replays, rng) for pool in pools]
        worth = np.array([one.advantages for one in found]) / batch.beta
        log_ratio = self._climb(policy, batch, responses, worth)
        return _row(log_ratio, rewards, [one.win_rate for one in found])

    def _traced(
        self,
        procedure: TextProcedure,
        policy: Any,
        batch: Problem,
        opponents: Opponents,
        rng: np.random.Generator,
    ) -> Row:
        """Beginnings: credit to all that a run drew, by its answer against the other runs'."""
        traces, rewards = _traces(procedure, policy, batch, self.runs, rng)
        worth = np.array([opponents.worth(i, r) for i, r in zip(batch.ids, rewards, strict=True)])
        advantages = _left_out(worth) / (batch.beta * self.runs * len(batch.prompts))
        credited = [
            (batch.texts[i // self.runs], segment, advantages.flat[i])
            for i, trace in enumerate(traces)
            for segment in trace.segments
        ]
        for rows in passes(len(credited), self.prompts_per_pass * self.k):
            _credit(policy, credited[rows])
        responses = policy.sample(batch.texts, self.k, rng)
        log_ratio = self._climb(policy, batch, responses, np.zeros((len(worth), self.k)))
        _, sampled = pools_of(batch, responses)
        return _row(log_ratio, sampled, worth.mean(1))

    def _climb(
        self, policy: Any, batch: Problem, responses: Any, worth: Float[np.ndarray, "P K"]
    ) -> Float[np.ndarray, "P K"]:
        """The gradient of what the samples are worth, less the KL's; returns log(π/π_ref)."""
        import torch

        reference, ratios = policy.reference_log_prob(batch.texts, responses), []
        for rows in passes(len(batch.prompts), self.prompts_per_pass):
            log_prob = policy.differentiable_log_prob(batch.texts[rows], responses[rows])
            log_ratio = numpy_of(log_prob) - reference[rows]
            advantage = worth[rows] - _left_out(log_ratio)
            weight = torch.as_tensor(advantage, dtype=log_prob.dtype, device=log_prob.device)
            (-(weight * log_prob).mean(1).sum() / len(batch.prompts)).backward()
            ratios.append(log_ratio)
        return np.concatenate(ratios)


def _left_out(values: Float[np.ndarray, "P K"]) -> Float[np.ndarray, "P K"]:
    """Each value less the mean of the others of its row."""
    k = values.shape[1]
    return (values - values.mean(1, keepdims=True)) * k / (k - 1)


def _credit(policy: Any, credited: Sequence[tuple[str, Segment, float]]) -> None:
    """The gradient of −Σ advantage·log π(new tokens | beginning)."""
    import torch

    log_prob = policy.differentiable_log_prob(
        [text for text, _, _ in credited],
        [[segment.response] for _, segment, _ in credited],
        starts=[[segment.start] for _, segment, _ in credited],
    )
    weight = torch.as_tensor(
        [[advantage] for _, _, advantage in credited], dtype=log_prob.dtype, device=log_prob.device
    )
    (-(weight * log_prob).sum()).backward()


def _traces(
    procedure: TextProcedure, policy: Any, batch: Problem, runs: int, rng: np.random.Generator
) -> tuple[list[Trace], Float[np.ndarray, "P R"]]:
    """Runs of the procedure at each prompt, side by side, and the rewards of their answers."""
    traces = answer_traced(
        procedure,
        policy,
        [prompt for prompt in batch.prompts for _ in range(runs)],
        Judge(batch) if procedure.needs_reward else None,
        calibration=getattr(batch.rewards, "calibration", None),
        rng=rng,
    )
    texts = [trace.decoded.text for trace in traces]
    rows = [texts[i : i + runs] for i in range(0, len(texts), runs)]
    return traces, batch.rewards.score(batch.ids, batch.texts, rows).rewards


def _row(
    log_ratio: Float[np.ndarray, "P K"],
    rewards: Float[np.ndarray, "P K"],
    win_rates: Sequence[float] | np.ndarray,
) -> Row:
    """What a step saw, before its update."""
    return {
        "kl": float(log_ratio.mean()),
        "reward": float(rewards.mean()),
        "win_rate": float(np.mean(win_rates)),
    }
