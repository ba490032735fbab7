"""What one more sample is worth to a decoded answer: the first variation of W, from samples.

W(π) = E[h(answer)], h the chance to beat the reference's decoded answer. A procedure that draws n
whole responses of π makes W a polynomial in π, and its first variation at y is n·E[h | y is one of
them], up to a constant. From m > n samples it is estimated without bias by the answers of many
subsets: n times the mean worth of those with y, less the mean worth of those without. What y does
not belong to cannot depend on it, so the second mean is a baseline that costs nothing.

For best-of-N on [0,1] the expectation is Φ(u) − E[Φ], Φ(u) = −∫_u¹ g(F)·g dv.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from infalign.decoding.replaying import Pool, balanced_orders, replay_all
from infalign.decoding.text_procedure import Scored, TextProcedure
from infalign.protocols import Response
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.training.solver import Problem

__all__ = [
    "Opponents",
    "Variation",
    "first_variation",
    "leave_one_out",
    "pools_of",
    "reference_pools",
    "replayed",
]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Opponents:
    """What the reference answers, decoded: rewards of its answers to each prompt."""

    rewards: Mapping[str, Float[np.ndarray, "R"]]
    """Prompt id → rewards, each answer equally likely."""

    def worth(self, prompt_id: str, rewards: Float[np.ndarray, "..."]) -> np.ndarray:
        """h: chance to beat the reference's answer, ties half.

        Example:
            >>> Opponents({"a": np.array([0.0, 1.0])}).worth("a", np.array([0.5, 1.0])).tolist()
            [0.5, 0.75]
        """
        theirs = self.rewards[prompt_id]
        return (1 + np.sign(np.asarray(rewards)[..., None] - theirs)).mean(-1) / 2


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Variation:
    """What m samples of one prompt say about W."""

    advantages: Float[np.ndarray, "m"]
    """First variation at each sample, less its mean: E[advantage·∇log π] = ∇W."""
    win_rate: float
    """Ŵ, mean worth of the answers."""


def leave_one_out(
    values: Float[np.ndarray, "B"], used: Bool[np.ndarray, "B m"]
) -> Float[np.ndarray, "m"]:
    """First variation at each of m samples, less its mean, from the values of B runs on subsets.

    a_i = m/B · Σ_{runs that drew i} (H_run − mean of H over runs that did not draw i). Where every
    run draws n and every sample is in as many runs, n·(mean with i − mean without i).

    Args:
        values: H, worth of each run's answer.
        used: which samples each run drew.

    Raises:
        ValueError: a sample that every run drew: nothing is left to compare it with.

    Example:
        >>> used = np.array([[True, True, False], [True, False, True], [False, True, True]])
        >>> leave_one_out(np.array([1.0, 1.0, 0.0]), used).tolist()
        [2.0, -1.0, -1.0]
    """
    values = np.asarray(values, dtype=float)
    without = (~used).sum(0)
    if not without.all():
        raise ValueError(
            f"every one of {len(used)} runs drew sample {int(np.argmin(without))} of "
            f"{used.shape[1]}; leaving it out needs a run without it. Draw more samples than the "
            "procedure takes."
        )
    baseline = values @ ~used / without
    return used.shape[1] / len(used) * (values @ used - used.sum(0) * baseline)


def first_variation(
    procedure: TextProcedure,
    pool: Pool,
    opponents: Opponents,
    replays: int,
    rng: np.random.Generator,
) -> Variation:
    """:func:`leave_one_out` of the worth of what the procedure answers on subsets of the pool.

    Args:
        procedure: draws whole responses only.
        pool: samples of the policy; more than the procedure draws.
        opponents: what its answers have to beat.
        replays: answers found, about; all subsets where they are no more.
        rng: draws subsets, and makes the procedure's own choices.
    """
    rewards, used = replayed(procedure, pool, replays, rng)
    values = opponents.worth(pool.prompt.id, rewards)
    return Variation(leave_one_out(values, used), float(values.mean()))


def replayed(
    procedure: TextProcedure, pool: Pool, replays: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "B"], Bool[np.ndarray, "B m"]]:
    """Rewards of the answers on B subsets of the pool, and which samples each of them drew."""
    orders = balanced_orders(len(pool.responses), procedure.most, replays, rng)
    used = np.zeros((len(orders), len(pool.responses)), dtype=bool)
    texts = []
    found = replay_all(procedure, pool, orders, rng)
    for row, order, (answer, drawn) in zip(used, orders, found, strict=True):
        row[order[:drawn]] = True
        texts.append(answer.text)
    return pool.judged(texts).rewards, used


def pools_of(
    problem: Problem, responses: Sequence[Sequence[Response]]
) -> tuple[list[Pool], Float[np.ndarray, "P K"]]:
    """Samples of each prompt, scored; and their rewards."""
    texts = [[response.text for response in row] for row in responses]
    scored = problem.rewards.score(problem.ids, problem.texts, texts)
    u = scored.quantiles
    pools = [
        Pool(prompt, row, Scored(scored.rewards[p], None if u is None else u[p]))
        for p, (prompt, row) in enumerate(zip(problem.prompts, responses, strict=True))
    ]
    return pools, scored.rewards


def reference_pools(
    problem: Problem, responses: Sequence[Sequence[Response]]
) -> tuple[list[Pool], Float[np.ndarray, "P K"]]:
    """:func:`pools_of` the reference's own; those that calibrate are ranked among the others."""
    pools, rewards = pools_of(problem, responses)
    calibration = getattr(problem.rewards, "calibration", None)
    if not isinstance(calibration, EmpiricalCalibration):
        return pools, rewards
    rows = [calibration.prompt_ids.index(prompt_id) for prompt_id in problem.ids]
    if not np.array_equal(calibration.reference_rewards[rows], rewards):
        return pools, rewards
    quantiles = calibration.leave_one_out()[rows]
    own = [Scored(*both) for both in zip(rewards, quantiles, strict=True)]
    kept = [dataclasses.replace(p, scored=one) for p, one in zip(pools, own, strict=True)]
    return kept, rewards
