"""`rollout` and `reward`: what `collect` and `score` do, by worker processes.

This process asks for what is missing, hands it out, and appends each shard as its result arrives:
it is the store's one writer, and what is finished survives whatever dies, this process included.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from infalign.integrations.ray.actors import Task, results
from infalign.integrations.ray.cluster import Workers, connect
from infalign.prompts import Prompt
from infalign.protocols import Reward, Sampler
from infalign.rollouts import (
    Chunk,
    Progress,
    RolloutStore,
    chunks,
    draw,
    maker_of,
    texts,
    unscored,
    values,
)
from infalign.rollouts.collecting import report, resumable
from infalign.rollouts.identity import identity_of, require_same

__all__ = ["reward", "rollout"]


def rollout(
    policy: Sampler,
    prompts: Sequence[Prompt],
    k: int,
    store: RolloutStore,
    *,
    workers: Workers | None = None,
    make: Callable[[], Sampler] | None = None,
    chunk: int = 8,
    progress: Progress | None = None,
) -> None:
    """Draw K responses to each prompt into the store, as :func:`infalign.rollouts.collect` does.

    The store becomes the one that `collect` makes, whatever the number of workers, the order in
    which they finish, and however often one of them or this process is killed and started again.

    Args:
        policy: the store's; asked here for its fingerprint alone.
        prompts: distinct, chat prompts already rendered.
        k: responses per prompt. ≥ 2.
        store: opened for this policy, here.
        workers: who draws; two processes of one CPU by default.
        make: makes the policy in a worker, once; by default `policy` itself is sent there. What it
            makes must be the store's policy: another fingerprint or sampling law is refused.
        chunk: prompts that a worker answers at a time. Part of what the random numbers follow
            from: keep it when resuming. ≥ 1.
        progress: called with (done, total) in responses after each chunk.

    Raises:
        ValueError: as `collect`; also if a worker makes another policy than the store's.
        Exception: whatever a worker's policy raises, of the same type. It is not tried again.
        BlockingIOError: if another run is writing the store.
        ChildProcessError: if four workers die one after another over one chunk.
    """
    store.require(policy, store.seed)
    task = Task(
        f"policy '{policy.name}'",
        make or functools.partial(_itself, policy),
        functools.partial(_require_policy, path=store.path, identity=store.identity),
        functools.partial(draw, seed=store.seed),
    )
    with resumable(store), store.writing():
        missing = chunks(store, prompts, k, chunk)
        done = Done(k * len(prompts), missing, progress)
        with _answered(task, missing, missing, workers) as answered:
            for part, responses in answered:
                store.add_rollouts(part.prompts, part.samples, responses)
                done.add(part)


def reward(
    store: RolloutStore,
    reward: Reward,
    prompts: Sequence[Prompt],
    progress: Progress | None = None,
    *,
    workers: Workers | None = None,
    make: Callable[[], Reward] | None = None,
    chunk: int = 8,
) -> None:
    """Give every rollout of the prompts its reward, as :func:`infalign.rollouts.score` does.

    Args:
        store: holding rollouts of all the prompts.
        reward: asked here for its name and fingerprint alone.
        prompts: distinct.
        progress: called with (done, total) in responses after each chunk.
        workers: who scores; two processes of one CPU by default.
        make: makes the reward in a worker, once; by default `reward` itself is sent there.
        chunk: prompts scored, and written, at a time. ≥ 1.

    Raises:
        ValueError: as `score`; also if a worker makes another reward than the one given.
        BlockingIOError: if another run is writing the store.
        ChildProcessError: if four workers die one after another over one chunk.
    """
    with resumable(store), store.writing():
        maker = maker_of(store, reward)
        task = Task(
            f"reward '{reward.name}'",
            make or functools.partial(_itself, reward),
            functools.partial(_require_reward, name=reward.name, maker=maker),
            _score,
        )
        missing = unscored(store, reward.name, prompts, chunk)
        total = int(store.counts(prompts).sum())
        done = Done(total, missing, progress)
        asked = ((part, texts(store, part)) for part in missing)
        with _answered(task, missing, asked, workers) as answered:
            for part, rewards in answered:
                store.add_rewards(reward.name, maker, part.prompts, part.samples, rewards)
                done.add(part)


class Done:
    """How many responses are there, told to whoever watches."""

    def __init__(self, total: int, missing: Sequence[Chunk], progress: Progress | None) -> None:
        self._total, self._progress = total, progress
        self._count = total - sum(part.size for part in missing)
        report(progress, self._count, total)

    def add(self, part: Chunk) -> None:
        """One more chunk is in the store."""
        self._count += part.size
        report(self._progress, self._count, self._total)


@contextlib.contextmanager
def _answered(
    task: Task, missing: Sequence[Chunk], asked: Iterable[Any], workers: Workers | None
) -> Iterator[Iterator[tuple[Chunk, Any]]]:
    """Each chunk with its answer, as they come; no worker goes on after the block."""
    if not missing:
        yield iter(())
        return
    workers = workers or Workers()
    connect("local", workers)
    with contextlib.closing(results(task, asked, workers)) as arriving:
        yield ((missing[index], answer) for index, answer in arriving)


def _itself(made: Any) -> Any:
    return made


def _require_policy(policy: Sampler, path: Path, identity: dict[str, Any]) -> None:
    require_same(path, identity, identity_of(policy, identity["seed"]))


def _require_reward(reward: Reward, name: str, maker: str | None) -> None:
    made = reward.name, getattr(reward, "fingerprint", None)
    if made != (name, maker):
        raise ValueError(
            f"a worker made the reward '{made[0]}' (fingerprint {made[1]}), but '{name}' "
            f"({maker}) was asked for. Give the workers the same files."
        )


def _score(reward: Reward, asked: tuple[Chunk, list[list[str]]]) -> Any:
    return values(reward, *asked)
