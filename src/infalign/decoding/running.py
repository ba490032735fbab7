"""Running text procedures for many prompts at once: equal wishes are served together.

Every procedure is at some wish; all draws of the same kind become one call of the policy, all
scores one call of the reward, and so on until everyone has an answer.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from infalign.decoding.text_procedure import (
    Decoded,
    Draw,
    Ranks,
    Score,
    Scored,
    Steps,
    TextProcedure,
)
from infalign.prompts import Prompt
from infalign.protocols import Continuer, Redrawer, Response, Reward, Sampler
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.ranks import quantiles

__all__ = ["answer_all", "check_procedure_fits", "judged"]

Progress = Callable[[int, int], None]
"""Called with the number of answers there are, and of those wanted."""


def check_procedure_fits(
    procedure: TextProcedure,
    policy: Sampler,
    reward: Reward | None,
    calibration: Calibration | None,
) -> None:
    """Refuse, before anything is sampled, what the procedure cannot do without.

    Raises:
        ValueError: no reward or no calibration where one is needed.
        TypeError: a policy that cannot go on from the beginning of a response, or fill gaps.
    """
    if reward is None and procedure.needs_reward:
        raise ValueError(
            f"{procedure.name} needs a reward to choose by and none came; give one, or use a "
            "procedure that needs none, such as majority_vote."
        )
    if calibration is None and procedure.needs_calibration:
        raise ValueError(
            f"{procedure.name} looks at quantiles, not only at ranks; give the calibration of "
            "the reference's rewards on these prompts."
        )
    if procedure.needs_beginnings and not isinstance(policy, Continuer):
        raise TypeError(
            f"{procedure.name} goes on from the beginning of a response, and {policy.name} "
            f"({type(policy).__name__}) cannot: it has no continue_from. Use a local model, or a "
            "server that speaks token ids (vLLM, SGLang)."
        )
    if procedure.needs_gaps and not isinstance(policy, Redrawer):
        raise TypeError(
            f"{procedure.name} fills gaps in a response, and {policy.name} "
            f"({type(policy).__name__}) cannot: it has no redraw. Use a masked model (MaskedLM), "
            "or a procedure that goes on from beginnings."
        )
    procedure.check(policy, reward)


def answer_all(
    procedure: TextProcedure,
    policy: Sampler,
    prompts: Sequence[Prompt],
    reward: Reward | None,
    *,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
    rng: np.random.Generator,
) -> list[Decoded]:
    """The procedure's answer to each prompt, in their order.

    Args:
        progress: told of each answer; nobody by default.
        rng: of draws and of the procedures' own choices.

    Raises:
        ValueError: see :func:`check_procedure_fits`; or a reward of another shape than asked for.
        TypeError: see :func:`check_procedure_fits`.
    """
    check_procedure_fits(procedure, policy, reward, calibration)
    running: dict[int, Steps] = {
        place: procedure.steps(prompt, own)
        for place, (prompt, own) in enumerate(zip(prompts, rng.spawn(len(prompts)), strict=True))
    }
    answers: dict[int, Decoded] = {}
    replies: dict[int, Any] = dict.fromkeys(running)
    # Some policies keep what they have read of a response while its beginnings are gone on from.
    keeping = getattr(policy, "keeping_beginnings", None)
    with keeping() if keeping and procedure.needs_beginnings else contextlib.nullcontext():
        while running:
            wishes: dict[int, Draw | Score] = {}
            for place in list(running):
                try:
                    wishes[place] = running[place].send(replies[place])
                except StopIteration as end:
                    answers[place] = end.value
                    del running[place]
                    if progress is not None:
                        progress(len(answers), len(prompts))
            replies = _drawn(policy, prompts, wishes, rng)
            replies |= _scored(reward, calibration, prompts, wishes)
    return [answers[place] for place in range(len(prompts))]


def _drawn(
    policy: Sampler,
    prompts: Sequence[Prompt],
    wishes: dict[int, Draw | Score],
    rng: np.random.Generator,
) -> dict[int, Any]:
    """Every draw served; those of the same k and limit in one call."""
    kinds: dict[tuple[bool, bool, int, int | None], list[tuple[int, Draw]]] = {}
    for place, wish in wishes.items():
        if isinstance(wish, Draw):
            kind = (wish.is_whole, bool(wish.erased), wish.k, wish.limit)
            kinds.setdefault(kind, []).append((place, wish))
    replies: dict[int, Any] = {}
    for asked in kinds.values():
        texts = [prompts[place].text for place, wish in asked for _ in _rows(wish)]
        rows = iter(_served(policy, texts, [wish for _, wish in asked], rng))
        replies |= {place: [next(rows) for _ in _rows(wish)] for place, wish in asked}
    return replies


def _rows(wish: Draw) -> Sequence[Sequence[int | None]]:
    """What a draw is asked for, one by one."""
    return wish.erased or wish.beginnings


def _served(
    policy: Sampler, texts: list[str], wishes: list[Draw], rng: np.random.Generator
) -> list[list[Response]]:
    """One call of the policy for wishes of the same kind."""
    first = wishes[0]
    if first.is_whole:
        return policy.sample(texts, first.k, rng)
    if first.erased:
        gaps = [row for wish in wishes for row in wish.erased]
        return cast(Redrawer, policy).redraw(texts, gaps, first.k, rng)
    begun = [row for wish in wishes for row in wish.beginnings]
    return cast(Continuer, policy).continue_from(texts, begun, first.k, rng, limit=first.limit)


def _scored(
    reward: Reward | None,
    calibration: Calibration | None,
    prompts: Sequence[Prompt],
    wishes: dict[int, Draw | Score],
) -> dict[int, Any]:
    """Every score served; those of equally many texts in one call."""
    sizes: dict[int, list[tuple[int, Score]]] = {}
    for place, wish in wishes.items():
        if isinstance(wish, Score):
            sizes.setdefault(len(wish.texts), []).append((place, wish))
    replies: dict[int, Any] = {}
    for size, asked in sizes.items():
        if reward is None:
            raise ValueError("a procedure asked for a score and no reward came; give one.")
        texts = [list(wish.texts) for _, wish in asked]
        rewards = np.asarray(reward([prompts[place].text for place, _ in asked], texts), float)
        if rewards.shape != (len(asked), size):
            raise ValueError(
                f"{reward.name} rewards have shape {rewards.shape} for {len(asked)} prompts × "
                f"{size} candidates; one number per candidate is needed to choose among them."
            )
        ids = [prompts[place].id for place, _ in asked]
        for (place, _), scored in zip(asked, judged(calibration, ids, rewards), strict=True):
            replies[place] = scored
    return replies


def judged(
    calibration: Calibration | None, ids: Sequence[str], rewards: Float[np.ndarray, "P K"]
) -> list[Scored]:
    """Rewards with their quantiles and, where the calibration has them, ranks.

    Args:
        calibration: under the reference; None: rewards only.
        ids: of P prompts.
        rewards: of K texts to each; those that are not finite get the quantile NaN.
    """
    if calibration is None:
        return [Scored(row) for row in rewards]
    is_finite = np.isfinite(rewards)
    known = np.where(is_finite, rewards, 0.0)
    if not isinstance(calibration, EmpiricalCalibration):
        u = np.where(is_finite, calibration(ids, known), np.nan)
        return [Scored(*both) for both in zip(rewards, u, strict=True)]
    below, ties = calibration.ranks(ids, known)
    u = np.where(is_finite, quantiles(below, ties, calibration.k), np.nan)
    below, ties = np.where(is_finite, below, -1), np.where(is_finite, ties, -1)
    ranks = [Ranks(*both, calibration.k) for both in zip(below, ties, strict=True)]
    return [Scored(*all_) for all_ in zip(rewards, u, ranks, strict=True)]
