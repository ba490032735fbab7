"""Drawing rollouts: fixed chunks, each with random numbers of its own.

The random numbers of a chunk follow from the seed, its prompts and the sample indices alone, never
from what was drawn before. That is why a run that was killed and resumed draws what an
uninterrupted one would have drawn.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampler
from infalign.rollouts.shards import content_key
from infalign.rollouts.store import RolloutStore

__all__ = ["Progress", "collect", "resumable"]

Progress = Callable[[int, int], None]
"""Called with (done, total), in responses; first with what was there already."""


def collect(
    policy: Sampler,
    prompts: Sequence[Prompt],
    k: int,
    store: RolloutStore,
    seed: int | None = None,
    chunk: int = 8,
    progress: Progress | None = None,
) -> None:
    """Draw K responses to each prompt into the store, skipping those it has.

    Raising k later keeps the samples 0..k−1 and draws only the others.

    Args:
        policy: must be the store's, with the same sampling law.
        prompts: distinct, chat prompts already rendered.
        k: responses per prompt. ≥ 2, because a calibration compares them.
        store: opened for this policy.
        seed: the store's; another one is refused.
        chunk: prompts sampled, and written, at a time. Part of what the random numbers follow
            from: keep it when resuming. ≥ 1.
        progress: called after each chunk.

    Raises:
        ValueError: for k < 2, repeated prompts, another policy or seed, a prompt answered before
            as another text, or a policy that returns too few responses.
        BlockingIOError: if another run is writing the store.
        OSError: if a shard cannot be written; those before it stay.
    """
    if k < 2:
        raise ValueError(
            f"k is {k}; at least 2 responses per prompt are needed, because a calibration ranks "
            "them among each other. 32 or more is usual."
        )
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1 prompt.")
    require_distinct(prompts)
    store.require(policy, store.seed if seed is None else seed)
    with resumable(store), store.writing():
        store.require_texts(prompts)
        total = k * len(prompts)
        done = total - _size(store.index.missing(prompts, k))
        _report(progress, done, total)
        for start in range(0, len(prompts), chunk):
            for samples, group in store.index.missing(prompts[start : start + chunk], k):
                store.add_rollouts(group, samples, _draw(policy, group, samples, store.seed))
                done += len(samples) * len(group)
                _report(progress, done, total)


def require_distinct(prompts: Sequence[Prompt]) -> None:
    """Refuse a list that is empty or names a prompt twice."""
    if not prompts:
        raise ValueError("there are no prompts; at least one is needed.")
    repeats = len(prompts) - len({prompt.id for prompt in prompts})
    if repeats:
        raise ValueError(f"{repeats} prompts repeat earlier ones. Give each prompt once.")


@contextlib.contextmanager
def resumable(store: RolloutStore) -> Iterator[None]:
    """Add to Ctrl-C what was kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(
            f"Stopped. {store.path} keeps every finished chunk; run the same again to resume."
        )
        raise


def _draw(
    policy: Sampler, prompts: list[Prompt], samples: tuple[int, ...], seed: int
) -> list[list[Response]]:
    key = content_key("rollouts", seed, [prompt.id for prompt in prompts], samples)
    rng = np.random.default_rng(int(key, 16))
    responses = policy.sample([prompt.text for prompt in prompts], len(samples), rng)
    counts = [len(row) for row in responses]
    if counts != [len(samples)] * len(prompts):
        raise ValueError(
            f"policy '{policy.name}' returned {counts} responses to {len(prompts)} prompts, the "
            f"first of them {prompts[0].id}; {len(samples)} to each are needed."
        )
    return responses


def _size(groups: Iterator[tuple[tuple[int, ...], list[Prompt]]]) -> int:
    return sum(len(samples) * len(group) for samples, group in groups)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
