"""What the reference answers, decoded: found once, before training on what is decoded."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infalign.decoding.identity import procedure_identity
from infalign.decoding.repeating import decode_repeatedly
from infalign.decoding.text_procedure import TextProcedure
from infalign.rollouts.shards import write_atomically
from infalign.training.checkpoints import identity_text, refuse_other_run
from infalign.training.descent import identity_of
from infalign.training.first_variation import Opponents, reference_pools, replayed
from infalign.training.rewards import TrainingReward
from infalign.training.solver import Problem

__all__ = ["Judge", "opponents_of"]


class Judge:
    """A training reward's own reward, as procedures ask for it."""

    name = "training reward"

    def __init__(self, problem: Problem) -> None:
        self._rewards: TrainingReward = problem.rewards
        self._ids = dict(zip(problem.texts, problem.ids, strict=True))

    def __call__(self, prompts: Sequence[str], responses: Sequence[Sequence[str]]) -> np.ndarray:
        ids = [self._ids[text] for text in prompts]
        return self._rewards.score(ids, prompts, responses).rewards


def opponents_of(
    procedure: TextProcedure,
    policy: Any,
    problem: Problem,
    count: int,
    directory: Path | None,
    seed: int,
) -> Opponents:
    """Answers of the reference to each prompt.

    Args:
        procedure: how they are found.
        policy: trainable; its reference answers.
        problem: prompts, rewards and, if there are any, stored samples of the reference.
        count: answers to each prompt, at least.
        directory: where answers are kept that are dear: those of chains and blocks.
        seed: of everything random.

    Raises:
        ValueError: the directory holds the answers of another run.
    """
    rng = np.random.default_rng(seed)
    if procedure.needs_beginnings:
        return _kept(procedure, policy, problem, count, directory, seed)
    n, responses = procedure.most, problem.rollouts
    if responses is None or math.comb(len(responses[0]), n) < count:
        m = max(count, 2 * n)  # they have at least m subsets of n
        with policy.reference():
            responses = policy.sample(problem.texts, m, rng)
    m = len(responses[0])
    subsets = m * math.ceil(count / m)  # whole circles
    pools, _ = reference_pools(problem, responses)
    answers = [replayed(procedure, pool, subsets, rng)[0] for pool in pools]
    return Opponents(dict(zip(problem.ids, answers, strict=True)))


def _kept(
    procedure: TextProcedure,
    policy: Any,
    problem: Problem,
    count: int,
    directory: Path | None,
    seed: int,
) -> Opponents:
    """Answers that the reference finds for itself, from disk where it found them before."""
    path = None if directory is None else directory / "opponents.json"
    told = {"procedure": procedure_identity(procedure), "opponents": count}
    identity = {**told, **identity_of(problem, seed)}
    if path is not None and path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        refuse_other_run(path.parent, found["identity"], identity)
        return Opponents({i: np.array(r) for i, r in found["rewards"].items()})
    calibration = getattr(problem.rewards, "calibration", None)
    rng, judge = np.random.default_rng(seed), Judge(problem)
    with policy.reference():
        answers = decode_repeatedly(
            policy, problem.prompts, judge, procedure, count, calibration=calibration, rng=rng
        )
    texts = [[answer.text for answer in row] for row in answers]
    rewards = problem.rewards.score(problem.ids, problem.texts, texts).rewards
    kept = dict(zip(problem.ids, rewards.tolist(), strict=True))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"identity": identity_text(identity), "rewards": kept}
        write_atomically(path, json.dumps(content).encode(), path.parent)
    return Opponents({i: np.array(r) for i, r in kept.items()})
