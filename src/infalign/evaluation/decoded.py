"""Win rates after decoding for any procedure: answers first, then one comparison of answers.

A procedure that only draws whole responses is run on many subsets of stored samples, each subset
without replacement: unbiased, and one set of samples serves every procedure. A procedure that goes
on from beginnings decodes for itself, several times per prompt. Either way the answers to one
prompt are alike, so a prompt gives one number, and errors are taken over prompts.

Reward ranks need none of this: :func:`.win_rate_samples` averages over all subsets at once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self, final

import numpy as np
from jaxtyping import Float

from infalign.decoding import Budget, Decoded, budget_of, on_text
from infalign.decoding.counts import refuse_count
from infalign.decoding.repeating import decode_repeatedly
from infalign.decoding.replaying import Pool, balanced_orders, replay_all
from infalign.decoding.running import judged
from infalign.decoding.text_procedure import TextProcedure
from infalign.evaluation.estimates import refuse_unscored
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler
from infalign.quantile.calibration import Calibration
from infalign.quantile.procedures import Procedure

__all__ = [
    "Answers",
    "answer_repeatedly",
    "answers_from_samples",
    "decoded_answers",
    "decoded_win_rate",
]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """R decoded answers of one policy to each of P prompts."""

    prompts: tuple[Prompt, ...]
    """P."""
    texts: tuple[tuple[str, ...], ...]
    """R to each."""
    rewards: Float[np.ndarray, "P R"]
    """Of the answers, by the judge."""
    budget: Budget
    """What one answer costs where it is not read off stored samples; mean."""

    def judged_by(self, reward: Reward) -> Self:
        """The same answers under another reward: what a gold judge says of them."""
        return dataclasses.replace(self, rewards=rewards_of(reward, self.prompts, self.texts))


def decoded_win_rate(ours: Answers, theirs: Answers) -> Float[np.ndarray, "P"]:
    """Chance of each prompt that our answer beats theirs, ties half; over all pairs of answers.

    Unbiased, where the two sides were sampled independently. Hand it to :func:`.estimate` for a
    number with its error, or two of them to :func:`.paired_difference`.

    Raises:
        ValueError: other prompts, or a reward that is not finite.
    """
    if [p.id for p in ours.prompts] != [p.id for p in theirs.prompts]:
        raise ValueError(
            "the two sides answered other prompts; decode the same prompts, in the same order."
        )
    refuse_unscored({"our rewards": ours.rewards, "their rewards": theirs.rewards})
    pairs = zip(ours.rewards, np.sort(theirs.rewards, axis=1), strict=True)
    return np.array([_win_rate(*both) for both in pairs])


def _win_rate(ours: Float[np.ndarray, "R"], theirs: Float[np.ndarray, "S"]) -> float:
    """Of all pairs, ties half; theirs are sorted."""
    below, upto = (np.searchsorted(theirs, ours, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(theirs)))


def decoded_answers(
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward,
    procedure: TextProcedure | Procedure,
    *,
    repeats: int = 8,
    calibration: Calibration | None = None,
    rng: np.random.Generator,
) -> Answers:
    """Answers of a policy, found as cheaply as the procedure allows.

    Args:
        policy: what is decoded; within `policy.reference()`, its reference.
        prompts: held out, if the number is to be believed.
        reward: chooses, where the procedure asks for one, and judges.
        procedure: how answers are found.
        repeats: independent answers to each prompt. Where whole responses are drawn, N·repeats
            samples are taken and every subset of N may answer: more answers at the same cost.
        calibration: for procedures that look at quantiles.
        rng: of everything.

    Raises:
        ValueError: repeats that are no count; see :func:`infalign.decoding.decode`.
    """
    refuse_count(repeats, "repeats", "a measurement (answers to each prompt)")
    found = on_text(procedure)
    if found.needs_beginnings or found.needs_gaps:
        return answer_repeatedly(
            policy, prompts, reward, found, repeats, calibration=calibration, rng=rng
        )
    responses = policy.sample([prompt.text for prompt in prompts], found.most * repeats, rng)
    texts = [[response.text for response in row] for row in responses]
    rewards = rewards_of(reward, prompts, texts)
    return answers_from_samples(
        prompts, responses, rewards, found, calibration=calibration, rng=rng
    )


def answer_repeatedly(
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward,
    procedure: TextProcedure | Procedure,
    repeats: int,
    *,
    calibration: Calibration | None = None,
    rng: np.random.Generator,
) -> Answers:
    """`repeats` independent answers to each prompt, every one decoded from scratch."""
    found = decode_repeatedly(
        policy, prompts, reward, procedure, repeats, calibration=calibration, rng=rng
    )
    return _answers(prompts, found, reward)


def answers_from_samples(
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[Response]],
    rewards: Float[np.ndarray, "P m"],
    procedure: TextProcedure | Procedure,
    *,
    calibration: Calibration | None = None,
    subsets: int = 256,
    rng: np.random.Generator,
) -> Answers:
    """Answers on subsets of stored samples, each sample in equally many.

    Args:
        prompts: P.
        responses: m samples of one policy to each; never those that calibrated or trained.
        rewards: of these samples, by what chooses.
        procedure: draws whole responses only, at most m.
        calibration: for procedures that look at quantiles.
        subsets: about so many; all, where there are no more.
        rng: draws subsets, and makes the procedure's own choices.

    Raises:
        ValueError: fewer samples than the procedure draws, one that goes on from a beginning, or
            a reward that is not finite.
    """
    found, m = on_text(procedure), rewards.shape[1]
    refuse_unscored({"rewards": rewards})
    if m < found.most:
        raise ValueError(
            f"{found.name} draws {found.most} responses and there are {m} samples per prompt; "
            "sample more."
        )
    answers, chosen = [], []
    scored = judged(calibration, [prompt.id for prompt in prompts], rewards)
    for prompt, row, one in zip(prompts, responses, scored, strict=True):
        pool = Pool(prompt, row, one)
        orders = balanced_orders(m, found.most, subsets, rng)
        answers.append([_bare(answer) for answer, _ in replay_all(found, pool, orders, rng)])
        chosen.append(pool.judged([answer.text for answer in answers[-1]]).rewards)
    return _answers(prompts, answers, None, np.array(chosen))


def _bare(answer: Decoded) -> Decoded:
    """The answer and its cost: what it was chosen among is stored once, not with every subset."""
    return Decoded(answer.prompt_id, answer.text, answer.index, (), (), answer.budget)


def _answers(
    prompts: Sequence[Prompt],
    found: Sequence[Sequence[Decoded]],
    reward: Reward | None,
    rewards: Float[np.ndarray, "P R"] | None = None,
) -> Answers:
    texts = tuple(tuple(one.text for one in row) for row in found)
    if reward is not None:
        rewards = rewards_of(reward, prompts, texts)
    assert rewards is not None, "answers are judged by a reward, or their rewards are known"
    return Answers(tuple(prompts), texts, rewards, budget_of([one for row in found for one in row]))


def rewards_of(
    reward: Reward, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]
) -> Float[np.ndarray, "P R"]:
    """Rewards of R texts to each prompt.

    Raises:
        ValueError: not one number for each.
    """
    asked = [prompt.text for prompt in prompts], [list(row) for row in texts]
    rewards = np.asarray(reward(*asked), dtype=float)
    if rewards.shape != (len(texts), len(texts[0])):
        raise ValueError(
            f"{reward.name} rewards have shape {rewards.shape} for {len(texts)} prompts × "
            f"{len(texts[0])} answers; one number per answer is needed."
        )
    return rewards
