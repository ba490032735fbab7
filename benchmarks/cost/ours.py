"""Steps of this library's solvers, and of direct preference optimisation on its policy."""

from collections.abc import Callable
from typing import Any

import numpy as np

from infalign.policies import CausalLM
from infalign.training import Descent, Fit, Online, Problem, Regression
from infalign.training.descent import descend, numpy_of, passes
from infalign.training.fit import stored_log_prob

__all__ = ["DPO_BETA", "RATE", "run", "worst_and_best"]

RATE = 1e-4
"""AdamW's learning rate, of all."""
DPO_BETA = 0.1


def run(name: str, policy: CausalLM, problem: Problem, steps: int, paused: Callable) -> None:
    """Trains for some steps; calls `paused` after each with the tokens it trained on.

    Args:
        name: `online`, `fit`, `regression` or `dpo`, perhaps with `-separate` (each answer in a row
            of its own: no beginning is shared), `-sampled` (answers are drawn anew in each step) or
            `-anew` (reference log-probabilities are computed in each step, not taken from the
            store).
    """
    kind, _, variant = name.partition("-")
    policy._packs = False if variant == "separate" else None
    descent = Descent(steps=steps, learning_rate=RATE)
    counted = _counting(policy, problem, drawn=variant == "sampled")
    options: dict[str, Any] = {"callback": lambda row: paused(counted())}
    rng = np.random.default_rng(0)
    if kind == "dpo":
        _dpo(policy, problem, descent, anew=variant == "anew", rng=rng, **options)
        return
    k = len(problem.stored()[0])
    solver = {
        "online": Online(descent, k=k),
        "fit": Fit(descent),
        "regression": Regression(descent),
    }
    solver[kind].train(policy, problem, rng=rng, **options)


def _counting(policy: CausalLM, problem: Problem, *, drawn: bool) -> Callable[[], int]:
    """Tokens of the last answers; those of the store are given out for drawn ones if asked."""
    last = [problem.stored()]
    draw = policy.sample

    def sample(*given: Any) -> Any:
        if drawn:
            last[0] = draw(*given)
        return last[0]

    policy.sample = sample  # type: ignore[method-assign]
    return lambda: sum(len(answer.token_ids) for row in last[0] for answer in row)


def worst_and_best(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a prompt's answers, "P K/2" each: the worst with the best, and so on inwards."""
    order = np.argsort(problem.rewards.atoms(problem.ids)[1], axis=1, kind="stable")
    half = order.shape[1] // 2
    return order[:, :half], order[:, ::-1][:, :half]


def _dpo(
    policy: CausalLM, problem: Problem, descent: Descent, *, anew: bool, rng: Any, callback: Any
) -> None:
    """−log σ(β·(log-ratio of the better − of the worse)), mean over pairs: TRL's loss."""
    import torch

    def accumulate(batch: Problem, rng: np.random.Generator) -> dict[str, float]:
        answers, losses = batch.stored(), []
        reference = (
            policy.reference_log_prob(batch.texts, answers) if anew else stored_log_prob(batch)
        )
        worse, better = map(torch.from_numpy, (a.copy() for a in worst_and_best(batch)))
        for rows in passes(len(batch.prompts), 8):
            ratio = policy.differentiable_log_prob(batch.texts[rows], answers[rows])
            ratio = ratio - torch.as_tensor(reference[rows])
            margin = ratio.gather(1, better[rows]) - ratio.gather(1, worse[rows])
            loss = -torch.nn.functional.logsigmoid(DPO_BETA * margin)
            (loss.mean(1).sum() / len(batch.prompts)).backward()
            losses.append(numpy_of(loss))
        return {"loss": float(np.concatenate(losses).mean())}

    settings = {"solver": "dpo", "beta": DPO_BETA}
    descend(
        descent,
        policy.module,
        problem,
        accumulate,
        settings=settings,
        directory=None,
        callback=callback,
        rng=rng,
    )
