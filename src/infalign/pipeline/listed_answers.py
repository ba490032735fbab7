"""What policies finally answer where responses are listed: the decoded law's favourites."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from infalign.quantile.procedures import RankProcedure
from infalign.quantile.win_rate import decoded_masses
from infalign.report import Answer, AnswerPair
from infalign.training.rewards import quantile_intervals

__all__ = ["listed_answers"]

FAVOURITES = 3
"""Responses named of each decoded law."""


def listed_answers(
    prompts: Sequence[str],
    responses: Sequence[Sequence[str]],
    laws: Mapping[str, Float[np.ndarray, "P C"]],
    rewards: Float[np.ndarray, "P C"],
    procedure: RankProcedure,
) -> tuple[AnswerPair, ...]:
    """The most likely answers after decoding, with mean reward and mean quantile of the answer.

    Args:
        prompts: P prompts.
        responses: C responses to each.
        laws: name → law of each policy, in this order; quantiles refer to `reference`.
        rewards: of the responses.
        procedure: decodes every policy.
    """
    low, high = quantile_intervals(laws["reference"], rewards)
    decoded = {name: decoded_masses(law, rewards, procedure) for name, law in laws.items()}
    pairs = []
    for row, prompt in enumerate(prompts):
        answers = tuple(
            Answer(
                name,
                _favourites(responses[row], masses[row]),
                float(masses[row] @ rewards[row]),
                float(masses[row] @ (low[row] + high[row]) / 2),
            )
            for name, masses in decoded.items()
        )
        pairs.append(AnswerPair(prompt, answers))
    return tuple(pairs)


def _favourites(texts: Sequence[str], masses: Float[np.ndarray, "C"]) -> str:
    top = np.argsort(-masses, kind="stable")[:FAVOURITES]
    named = [(texts[int(i)], masses[i]) for i in top]
    return ", ".join(f"{text.strip() or repr(text)} ({mass:.0%})" for text, mass in named)
