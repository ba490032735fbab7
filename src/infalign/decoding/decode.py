"""Sample N candidates, score them, answer with the one the procedure picks.

A rank procedure sees only the order of the candidates, so rewards serve as well as quantiles, and
better: an empirical quantile ties all candidates that beat every reference rollout. Procedures
that look at the quantile itself need a calibration, and are refused without one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler
from infalign.quantile.calibration import Calibration
from infalign.quantile.procedures import Procedure, RankProcedure

__all__ = ["Budget", "Decoded", "budget_of", "decode", "decode_stored"]


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The answer to one prompt, and everything that was sampled for it."""

    prompt_id: str
    """Whose answer."""
    text: str
    """The answer."""
    index: int
    """Which candidate it is."""
    candidates: tuple[Response, ...]
    """All N."""
    rewards: tuple[float, ...]
    """Of the candidates, in the reward's unit; NaN where nothing had to be scored."""

    @property
    def tokens(self) -> int:
        """Tokens sampled for this answer; 0 where the sampler has none."""
        return sum(len(response.token_ids) for response in self.candidates)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What decoding cost, mean per prompt."""

    responses: float
    """Responses sampled."""
    tokens: float
    """Tokens sampled."""


def decode(
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward | None,
    procedure: Procedure,
    *,
    calibration: Calibration | None = None,
    rng: np.random.Generator,
) -> list[Decoded]:
    """Answers each prompt by the procedure.

    Args:
        policy: Sampled N times for each prompt.
        prompts: What to answer.
        reward: What candidates are ranked by; None only where there is nothing to choose (N = 1).
        procedure: Picks the answer; candidates of equal reward are equally likely to be it.
        calibration: For procedures that look at quantiles; rank procedures ignore it.
        rng: Samples the candidates and breaks ties.

    Raises:
        ValueError: No reward to choose by, no calibration for a procedure that needs one, or a
            reward that is not a finite number.
    """
    n = procedure.candidates
    if reward is None and n > 1:
        raise ValueError(f"{procedure.name} chooses among {n} candidates and needs a reward.")
    if calibration is None and not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"{procedure.name} looks at quantiles, not only at ranks; give the calibration of "
            "the reference's rewards on these prompts."
        )
    texts = [prompt.text for prompt in prompts]
    candidates = policy.sample(texts, n, rng)
    if reward is None:
        rewards = np.full((len(prompts), n), np.nan)
        return _answers(prompts, candidates, rewards, np.zeros(len(prompts), dtype=int))
    answers = [[response.text for response in row] for row in candidates]
    rewards = np.asarray(reward(texts, answers), dtype=float)
    _refuse_rewards(rewards, reward.name, prompts, n)
    scores = rewards
    if calibration is not None and not isinstance(procedure, RankProcedure):
        scores = calibration([prompt.id for prompt in prompts], rewards)
    return _answers(prompts, candidates, rewards, _select(procedure, scores, rng))


def decode_stored(
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[Response]],
    rewards: Float[np.ndarray, "P m"],
    procedure: RankProcedure,
    rng: np.random.Generator,
) -> list[Decoded]:
    """Answers each prompt from samples at hand: N of its m, at random, are the candidates.

    For showing what a procedure answers without sampling again; the win rate of these answers is
    an unbiased but noisier version of :func:`infalign.evaluation.win_rate_samples`.

    Raises:
        ValueError: N exceeds the samples, or a reward is not a finite number.
    """
    n, m = procedure.candidates, rewards.shape[1]
    _refuse_rewards(rewards, "stored", prompts, m)
    if n > m:
        raise ValueError(
            f"{procedure.name} draws {n} candidates and there are {m} samples per prompt; sample "
            "more, or use a smaller N."
        )
    drawn = np.array([rng.permutation(m)[:n] for _ in prompts]).reshape(len(prompts), n)
    candidates = [[row[i] for i in of] for row, of in zip(responses, drawn, strict=True)]
    chosen = np.take_along_axis(rewards, drawn, axis=1)
    return _answers(prompts, candidates, chosen, _select(procedure, chosen, rng))


def budget_of(decoded: Sequence[Decoded]) -> Budget:
    """Mean cost per prompt.

    Example:
        >>> candidates = Response("yes", (7, 2)), Response("no", (3,))
        >>> budget_of([Decoded("a", "yes", 0, candidates, rewards=(1.0, 0.0))])
        Budget(responses=2.0, tokens=3.0)
    """
    if not decoded:
        raise ValueError("nothing was decoded; a mean cost needs at least one prompt.")
    return Budget(
        float(np.mean([len(one.candidates) for one in decoded])),
        float(np.mean([one.tokens for one in decoded])),
    )


def _select(
    procedure: Procedure, scores: Float[np.ndarray, "P N"], rng: np.random.Generator
) -> np.ndarray:
    """The procedure's pick; a shuffle first makes equals equally likely, wherever they stand."""
    shuffled = rng.permuted(np.tile(np.arange(scores.shape[1]), (len(scores), 1)), axis=1)
    picked = procedure.select(np.take_along_axis(scores, shuffled, axis=1), rng)
    return np.take_along_axis(shuffled, np.asarray(picked)[:, None], axis=1)[:, 0]


def _answers(prompts, candidates, rewards, picked) -> list[Decoded]:
    return [
        Decoded(prompt.id, row[index].text, int(index), tuple(row), tuple(map(float, values)))
        for prompt, row, values, index in zip(prompts, candidates, rewards, picked, strict=True)
    ]


def _refuse_rewards(rewards: np.ndarray, name: str, prompts: Sequence[Prompt], n: int) -> None:
    if rewards.shape != (len(prompts), n):
        raise ValueError(
            f"{name} rewards have shape {rewards.shape} for {len(prompts)} prompts × {n} "
            "candidates; one number per candidate is needed to choose among them."
        )
    bad = np.argwhere(~np.isfinite(rewards))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{name} reward of candidate {column} to prompt {prompts[row].id!r} is "
            f"{rewards[row, column]}; candidates cannot be ranked by it. Repair the reward."
        )
