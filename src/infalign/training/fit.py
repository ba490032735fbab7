"""Fitting the exact tilt of stored rollouts by likelihood: no exploration, no new samples.

The optimum π* = π_ref·exp(Φ/β)/Z is known on the stored rollouts up to their own sampling noise:
rollout i of a prompt deserves the weight w_i = exp(Φ_i/β)/Σ_j exp(Φ_j/β). Weighted likelihood
moves the policy there. It is right when rollouts cover what the tilt wants (KL well below log K).
"""

import dataclasses
from pathlib import Path
from typing import Literal, final

import numpy as np
from jaxtyping import Float, Int

from infalign.training.descent import Descent, descend, identifying, numpy_of, passes
from infalign.training.measure import measured_row
from infalign.training.solver import Callback, Problem, Row, Solver, TrainablePolicy, TrainingResult

__all__ = ["Fit", "systematic_picks"]


@final
@dataclasses.dataclass(frozen=True)
class Fit(Solver):
    """Minimises the cross-entropy from the tilted rollouts. Needs rollouts with log-probabilities.

    `likelihood`: −Σ_i w_i·log π(y_i), the maximum-likelihood fit. `contrast`: −Σ_i w_i·log ρ_i
    with ρ_i ∝ π(y_i)/π_ref(y_i) over the rollouts of the prompt. Its gradient
    Σ_i (w_i − ρ_i)·∇log π(y_i) vanishes, sample by sample, at the tilt: nothing pulls towards the
    stored texts as such, so it memorises them less; but it does not see a common factor of all of
    them, and needs all K rollouts in each step.

    The log's `gap` is KL(π*‖π) on the rollouts, in nats; `kl` and `win_rate` appear at the steps
    where the policy is measured (`descent.measure_every`). `stored_kl` is its self-normalised
    importance estimate from the rollouts, biased when the KL is large, for watching only.

    Reference: `contrast` with a reward is InfoNCA, "Noise Contrastive Alignment of Language
    Models with Explicit Rewards" (arXiv:2402.05369), here with the calibrated reward.
    """

    descent: Descent = dataclasses.field(default_factory=Descent)
    """How steps are taken."""
    loss: Literal["likelihood", "contrast"] = "likelihood"
    """Which cross-entropy; see above."""
    k: int | None = None
    """Rollouts of each prompt in one step, drawn by weight (systematically); None: all K."""
    prompts_per_pass: int = 8
    """Prompts in one forward and backward pass: memory, not mathematics."""

    def __post_init__(self) -> None:
        if self.loss == "contrast" and self.k is not None:
            raise ValueError(
                f"k is {self.k} with loss='contrast'; the contrast is among all rollouts of a "
                "prompt, so leave k unset, or choose loss='likelihood'."
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
        self.descent.refuse_blind_stop()
        stored_log_prob(problem)  # refuse rollouts without log-probabilities before any work

        def accumulate(batch: Problem, rng: np.random.Generator) -> Row:
            return self._accumulate(policy, batch, rng)

        def measure(batch: Problem, rng: np.random.Generator) -> Row:
            row = measured_row(policy, batch, self.descent.measure_k, rng)
            # The log's gap is from the tilt to the policy; the sampled one is the other way round.
            row["reverse_gap"] = row.pop("gap")
            return row

        return descend(
            self.descent,
            policy.module,
            problem,
            accumulate,
            settings={"solver": "fit", **identifying(self)},
            directory=directory,
            callback=callback,
            rng=rng,
            measure=measure,
        )

    def _accumulate(self, policy: TrainablePolicy, batch: Problem, rng: np.random.Generator) -> Row:
        import torch

        rollouts, reference = batch.stored(), stored_log_prob(batch)
        tilt = tilt_weights(batch)
        weights, target = tilt, np.log(tilt * tilt.shape[1] + 1e-300)
        if self.k is not None:
            picks = systematic_picks(weights, self.k, rng)
            rollouts = [[rollouts[p][i] for i in row] for p, row in enumerate(picks)]
            reference = np.take_along_axis(reference, picks, 1)
            target = np.take_along_axis(target, picks, 1)
            weights = np.full(picks.shape, 1 / self.k)
        log_ratios = []
        for rows in passes(len(batch.prompts), self.prompts_per_pass):
            log_prob = policy.differentiable_log_prob(batch.texts[rows], rollouts[rows])
            w = torch.as_tensor(weights[rows], dtype=log_prob.dtype, device=log_prob.device)
            log_ratio = log_prob - torch.as_tensor(
                reference[rows], dtype=log_prob.dtype, device=log_prob.device
            )
            gain = log_ratio
            if self.loss == "contrast":
                gain = torch.log_softmax(log_ratio, dim=1)
            (-(w * gain).sum() / len(batch.prompts)).backward()
            log_ratios.append(numpy_of(log_ratio))
        return _row(np.concatenate(log_ratios), weights, target, batch if self.k is None else None)


def tilt_weights(batch: Problem) -> Float[np.ndarray, "P K"]:
    """w_i = exp(Φ_i/β)/Σ_j exp(Φ_j/β) over the stored rollouts of each prompt."""
    masses, training_rewards = batch.rewards.atoms(batch.ids)
    log_partition = batch.rewards.log_partition(batch.beta, batch.ids)
    return masses * np.exp(training_rewards / batch.beta - log_partition[:, None])


def stored_log_prob(problem: Problem) -> Float[np.ndarray, "P K"]:
    """log π_ref of the stored rollouts, as they were sampled. Nats.

    Raises:
        ValueError: A rollout has none.
    """
    stored = problem.stored()
    log_prob = np.array([[response.log_prob for response in row] for row in stored], dtype=float)
    bad = np.argwhere(~np.isfinite(log_prob))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"rollout {column} of prompt {problem.prompts[row].id!r} has log-probability "
            f"{log_prob[row, column]}; offline training is relative to the reference and needs it. "
            "Collect the rollouts with a policy that reports log-probabilities."
        )
    return log_prob


def systematic_picks(
    weights: Float[np.ndarray, "P K"], k: int, rng: np.random.Generator
) -> Int[np.ndarray, "P k"]:
    """k indices per row; index i is expected k·w_i times and occurs within one of that.

    Of all ways to resample without bias this one has nearly the least variance.

    Example:
        >>> systematic_picks(np.array([[0.5, 0.0, 0.5]]), 4, np.random.default_rng(0)).tolist()
        [[0, 0, 2, 2]]
    """
    pointers = (np.arange(k) + rng.random((len(weights), 1))) / k
    cumulative = np.cumsum(weights, axis=1)
    cumulative /= cumulative[:, -1:]
    return (pointers[:, :, None] >= cumulative[:, None, :]).sum(-1)


def _row(
    log_ratio: Float[np.ndarray, "P K"],
    weights: Float[np.ndarray, "P K"],
    target: Float[np.ndarray, "P K"],
    batch: Problem | None,
) -> Row:
    row = {"gap": float((weights * (target - log_ratio)).sum(1).mean())}
    if batch is None:
        return row
    ratio = np.exp(log_ratio - log_ratio.max(1, keepdims=True))
    rho = ratio / ratio.sum(1, keepdims=True)
    stored_kl = (rho * np.log(rho * rho.shape[1] + 1e-300)).sum(1)
    _, training_rewards = batch.rewards.atoms(batch.ids)
    row["stored_kl"] = float(stored_kl.mean())
    row["stored_training_reward"] = float((rho * training_rewards).sum(1).mean())
    # Mean factor of the stored rollouts: far from 0 means mass is moving to or from unseen texts.
    row["stored_log_mass"] = float(np.log(np.exp(log_ratio).mean(1)).mean())
    return row
