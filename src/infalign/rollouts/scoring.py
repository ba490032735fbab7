"""Scoring rollouts: rewards appended beside them, chunk by chunk, under the reward's name."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from infalign.prompts import Prompt
from infalign.protocols import Reward
from infalign.rollouts.collecting import (
    Chunk,
    Progress,
    grouped,
    report,
    require_distinct,
    require_positive,
    resumable,
)
from infalign.rollouts.store import RolloutStore
from infalign.rollouts.tables import REWARDS, ROLLOUTS, reward_slug

__all__ = ["maker_of", "score", "texts", "unscored", "values"]


def score(
    store: RolloutStore,
    reward: Reward,
    prompts: Sequence[Prompt],
    progress: Progress | None = None,
    chunk: int = 8,
) -> None:
    """Give every rollout of the prompts its reward, skipping those that have one.

    A reward may have a `fingerprint`, a string that changes with its weights; rewards of the same
    name and another fingerprint are then refused instead of mixed.

    Args:
        store: holding rollouts of all the prompts.
        reward: called with at most `chunk` prompts at a time.
        prompts: distinct.
        progress: called with (done, total) in responses after each chunk.
        chunk: prompts scored, and written, at a time. ≥ 1.

    Raises:
        ValueError: if a prompt has no rollouts; if the reward raises, returns another shape than
            "P K" or a non-finite value: named, with the prompt's id. Rewards written before stay.
        BlockingIOError: if another run is writing the store.
        OSError: if a shard cannot be written; those before it stay.
    """
    require_positive(chunk)
    require_distinct(prompts)
    with resumable(store), store.writing():
        maker = maker_of(store, reward)
        missing = unscored(store, reward.name, prompts, chunk)
        total = int(store.counts(prompts).sum())
        done = total - sum(part.size for part in missing)
        report(progress, done, total)
        for part in missing:
            rewards = values(reward, part, texts(store, part))
            store.add_rewards(reward.name, maker, part.prompts, part.samples, rewards)
            done += part.size
            report(progress, done, total)


def unscored(
    store: RolloutStore, name: str, prompts: Sequence[Prompt], chunk: int = 8
) -> list[Chunk]:
    """What :func:`score` would ask the reward `name`, in its order.

    For engines that score elsewhere: ask :func:`values` of each, in any order and any process, and
    add them with `store.add_rewards(name, maker_of(store, reward), part.prompts, part.samples,
    rewards)` inside `with store.writing():`.

    Raises:
        ValueError: if a prompt has no rollouts, or was answered as another text.
    """
    require_positive(chunk)
    require_distinct(prompts)
    store.require_texts(prompts)
    unanswered = np.flatnonzero(store.counts(prompts) == 0)
    if len(unanswered):
        prompt = prompts[unanswered[0]]
        raise ValueError(
            f"prompt {prompt.id} ({excerpt(prompt.text)}) has no rollouts in {store.path}. Collect "
            "them first."
        )
    return grouped(prompts, store.index.unscored(name, prompts), chunk)


def texts(store: RolloutStore, chunk: Chunk) -> list[list[str]]:
    """What the chunk's rollouts say, a list per prompt."""
    return store.texts(chunk.prompts, chunk.samples)


def maker_of(store: RolloutStore, reward: Reward) -> str | None:
    """The reward's fingerprint, or None where it has none.

    Raises:
        ValueError: if the store has rewards of that name and another fingerprint, or the name is
            a column's.
    """
    name, maker = reward.name, getattr(reward, "fingerprint", None)
    if not name or name in ROLLOUTS.names or name in REWARDS.names:
        raise ValueError(
            f"a reward cannot be named '{name}': the store has a column of that name. Rename it."
        )
    stored = store.index.makers.get(name, maker)
    if stored != maker:
        raise ValueError(
            f"{store.path} has rewards '{name}' made by another reward of that name (fingerprint "
            f"{stored} there, {maker} here). Give this one another name, or delete "
            f"{store.path / 'rewards'}/{reward_slug(name)}-*.parquet to score again."
        )
    return maker


def values(reward: Reward, chunk: Chunk, texts: list[list[str]]) -> Float[np.ndarray, "P K"]:
    """The reward of a chunk; where that fails, of each prompt alone, to name the one at fault.

    Raises:
        ValueError: if the reward raises, or returns another shape or a non-finite value.
    """
    prompts = chunk.prompts
    try:
        return _values(reward, prompts, texts)
    except Exception as batch_error:
        for prompt, row in zip(prompts, texts, strict=True):
            try:
                _values(reward, [prompt], [row])
            except Exception as error:
                raise ValueError(
                    f"reward '{reward.name}' failed on prompt {prompt.id} "
                    f"({excerpt(prompt.text)}): {_described(error)}. Rewards of earlier prompts "
                    "are kept; mend the reward and run the same again to resume."
                ) from error
        raise ValueError(
            f"reward '{reward.name}' failed on {len(prompts)} prompts together, the first of them "
            f"{prompts[0].id} ({excerpt(prompts[0].text)}), though on none of them alone: "
            f"{_described(batch_error)}. Rewards of earlier prompts are kept."
        ) from batch_error


def _values(
    reward: Reward, prompts: Sequence[Prompt], texts: list[list[str]]
) -> Float[np.ndarray, "P K"]:
    values = np.asarray(reward([prompt.text for prompt in prompts], texts), dtype=np.float64)
    needed = (len(prompts), len(texts[0]))
    if values.shape != needed:
        raise ValueError(
            f"it returned an array of shape {values.shape}; {needed} is needed, one number for "
            "each response to each prompt"
        )
    if not np.isfinite(values).all():
        p, k = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"it returned {values[p, k]} for the response {excerpt(texts[p][k])}; a quantile "
            "needs finite rewards"
        )
    return values


def _described(error: Exception) -> str:
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def excerpt(text: str) -> str:
    """Enough of a text to recognise it by, on one line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
