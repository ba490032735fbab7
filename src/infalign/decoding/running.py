"""Running text procedures for many prompts at once: equal wishes are served together.

Every procedure is at some wish; all draws of the same kind become one call of the policy, all
scores one call of the reward, and so on until everyone has an answer.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from infalign.decoding.text_procedure import Decoded, Draw, Score, Scored, Steps, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Continuer, Reward, Sampler
from infalign.quantile.calibration import Calibration

__all__ = ["answer_all", "check_procedure_fits"]

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
        TypeError: a policy that cannot go on from the beginning of a response.
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
    kinds: dict[tuple[bool, int, int | None], list[tuple[int, Draw]]] = {}
    for place, wish in wishes.items():
        if isinstance(wish, Draw):
            kinds.setdefault((wish.is_whole, wish.k, wish.limit), []).append((place, wish))
    replies: dict[int, Any] = {}
    for (is_whole, k, limit), asked in kinds.items():
        texts = [prompts[place].text for place, wish in asked for _ in wish.beginnings]
        if is_whole:
            drawn = policy.sample(texts, k, rng)
        else:
            begun = [beginning for _, wish in asked for beginning in wish.beginnings]
            drawn = cast(Continuer, policy).continue_from(texts, begun, k, rng, limit=limit)
        rows = iter(drawn)
        replies |= {place: [next(rows) for _ in wish.beginnings] for place, wish in asked}
    return replies


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
        quantiles = [None] * len(asked) if calibration is None else _of(calibration, ids, rewards)
        for (place, _), row, u in zip(asked, rewards, quantiles, strict=True):
            replies[place] = Scored(row, u)
    return replies


def _of(calibration: Calibration, ids: list[str], rewards: np.ndarray) -> np.ndarray:
    """Quantiles of finite rewards; NaN of others."""
    is_finite = np.isfinite(rewards)
    return np.where(is_finite, calibration(ids, np.where(is_finite, rewards, 0.0)), np.nan)
