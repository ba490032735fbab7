"""Answer prompts by a procedure: one call for all of them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from infalign.decoding.running import Progress, answer_all
from infalign.decoding.selection import Selection, pick, refuse_rewards
from infalign.decoding.text_procedure import Decoded, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler
from infalign.quantile.calibration import Calibration
from infalign.quantile.procedures import Procedure, RankProcedure

__all__ = ["decode", "decode_stored", "on_text"]


def on_text(procedure: Procedure | TextProcedure) -> TextProcedure:
    """The procedure as one on text."""
    return procedure if isinstance(procedure, TextProcedure) else Selection(procedure)


def decode(
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward | None,
    procedure: Procedure | TextProcedure,
    *,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
    rng: np.random.Generator,
) -> list[Decoded]:
    """Answers each prompt by the procedure.

    Args:
        policy: What is sampled from.
        prompts: What to answer.
        reward: What candidates are judged by; None only where nothing asks for it.
        procedure: Finds the answer; candidates of equal reward are equally likely to be it.
        calibration: For procedures that look at quantiles; to others it only adds a report.
        progress: Told how many answers there are, and how many are wanted.
        rng: Samples the candidates and breaks ties.

    Raises:
        ValueError: No reward to choose by, no calibration for a procedure that needs one, or a
            reward that is not a finite number.
        TypeError: A policy that cannot do what the procedure needs.
    """
    return answer_all(
        on_text(procedure),
        policy,
        prompts,
        reward,
        calibration=calibration,
        progress=progress,
        rng=rng,
    )


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
    if n > m:
        raise ValueError(
            f"{procedure.name} draws {n} candidates and there are {m} samples per prompt; sample "
            "more, or use a smaller N."
        )
    answers = []
    for prompt, row, values in zip(prompts, responses, rewards, strict=True):
        refuse_rewards(values, prompt)
        drawn = rng.permutation(m)[:n]
        index, chosen = pick(procedure, values[drawn], rng), tuple(row[i] for i in drawn)
        picked = tuple(float(value) for value in values[drawn])
        answers.append(Decoded(prompt.id, chosen[index].text, index, chosen, picked))
    return answers
