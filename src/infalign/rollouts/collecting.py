"""Drawing rollouts: fixed chunks, each with random numbers of its own.

The random numbers of a chunk follow from the seed, its prompts and the sample indices alone, never
from what was drawn before, nor from where. That is why a run that was killed and resumed draws what
an uninterrupted one would have drawn, and why chunks may be drawn by other processes or machines.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from infalign.prompts import Prompt
from infalign.protocols import Response, Sampler
from infalign.rollouts.shards import content_key
from infalign.rollouts.store import RolloutStore

__all__ = ["Chunk", "Progress", "chunks", "collect", "draw", "resumable"]

Progress = Callable[[int, int], None]
"""Called with (done, total), in responses; first with what was there already."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What is drawn, or scored, in one go, and becomes one shard."""

    prompts: tuple[Prompt, ...]
    """Distinct."""
    samples: tuple[int, ...]
    """Which samples of each of the prompts, ascending."""

    @property
    def size(self) -> int:
        """Responses."""
        return len(self.prompts) * len(self.samples)


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
    _require_askable(prompts, k, chunk)
    store.require(policy, store.seed if seed is None else seed)
    with resumable(store), store.writing():
        missing = chunks(store, prompts, k, chunk)
        total = k * len(prompts)
        done = total - sum(part.size for part in missing)
        report(progress, done, total)
        for part in missing:
            store.add_rollouts(part.prompts, part.samples, draw(policy, part, store.seed))
            done += part.size
            report(progress, done, total)


def chunks(store: RolloutStore, prompts: Sequence[Prompt], k: int, chunk: int = 8) -> list[Chunk]:
    """What :func:`collect` would draw, in its order.

    For engines that draw elsewhere: :func:`draw` each, in any order and any process, and add them
    with `store.add_rollouts(part.prompts, part.samples, responses)` inside `with store.writing():`.
    Ask for the chunks inside it too, so that nothing is drawn that another run has added.

    Raises:
        ValueError: as :func:`collect`.
    """
    _require_askable(prompts, k, chunk)
    store.require_texts(prompts)
    return grouped(prompts, store.index.missing(prompts, k), chunk)


def draw(policy: Sampler, chunk: Chunk, seed: int) -> list[list[Response]]:
    """The chunk's responses, a list per prompt: the same wherever and whenever they are drawn.

    Args:
        policy: whose responses these are.
        chunk: whose prompt ids and samples, with the seed, the random numbers follow from.
        seed: the store's.

    Raises:
        ValueError: if the policy returns another number of responses than was asked for.
    """
    key = content_key("rollouts", seed, [prompt.id for prompt in chunk.prompts], chunk.samples)
    rng = np.random.default_rng(int(key, 16))
    texts = [prompt.text for prompt in chunk.prompts]
    responses = policy.sample(texts, len(chunk.samples), rng)
    counts = [len(row) for row in responses]
    if counts != [len(chunk.samples)] * len(chunk.prompts):
        raise ValueError(
            f"policy '{policy.name}' returned {counts} responses to {len(chunk.prompts)} prompts, "
            f"the first of them {chunk.prompts[0].id}; {len(chunk.samples)} to each are needed."
        )
    return responses


def grouped(
    prompts: Sequence[Prompt], lacking: Sequence[tuple[int, ...]], chunk: int
) -> list[Chunk]:
    """Of each `chunk` prompts, those that lack the same samples together."""
    found = []
    for start in range(0, len(prompts), chunk):
        groups: dict[tuple[int, ...], list[Prompt]] = {}
        for prompt, samples in zip(
            prompts[start : start + chunk], lacking[start : start + chunk], strict=True
        ):
            if samples:
                groups.setdefault(samples, []).append(prompt)
        found += [Chunk(tuple(group), samples) for samples, group in groups.items()]
    return found


def require_distinct(prompts: Sequence[Prompt]) -> None:
    """Refuse a list that is empty or names a prompt twice."""
    if not prompts:
        raise ValueError("there are no prompts; at least one is needed.")
    repeats = len(prompts) - len({prompt.id for prompt in prompts})
    if repeats:
        raise ValueError(f"{repeats} prompts repeat earlier ones. Give each prompt once.")


def require_positive(chunk: int) -> None:
    """Refuse chunks of nothing."""
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1 prompt.")


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


def report(progress: Progress | None, done: int, total: int) -> None:
    """Tell whoever watches, if anyone does."""
    if progress is not None:
        progress(done, total)


def _require_askable(prompts: Sequence[Prompt], k: int, chunk: int) -> None:
    if k < 2:
        raise ValueError(
            f"k is {k}; at least 2 responses per prompt are needed, because a calibration ranks "
            "them among each other. 32 or more is usual."
        )
    require_positive(chunk)
    require_distinct(prompts)
