"""The reward, in a thread of its own: what waits together is scored together.

A reward is a function that takes its time; the event loop must not wait for it. While one call
runs, the texts of all other requests gather, and the next call takes them at once.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np

from infalign.protocols import Reward
from infalign.rewards.function import RewardRaised, RewardUnfit
from infalign.serving.accounting import request_id
from infalign.serving.metrics import Metrics
from infalign.serving.refusals import Refused

__all__ = ["Scorer"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    prompt: str
    texts: tuple[str, ...]
    done: "asyncio.Future[np.ndarray | _Failed]"


@dataclasses.dataclass(frozen=True, eq=False)
class _Failed:
    """What the reward raised. Not raised again: in the loop, SystemExit would end the server."""

    error: BaseException


@final
class Scorer:
    """Scores texts of many requests; use :meth:`opened`.

    Args:
        reward: called from one thread only.
        most: texts in one call.
        metrics: told of each call.
    """

    def __init__(self, reward: Reward, most: int, metrics: Metrics) -> None:
        self.name, self._reward, self._most, self._metrics = reward.name, reward, most, metrics
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward")

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Score while the block runs."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, prompt: str, texts: Sequence[str]) -> np.ndarray:
        """Rewards of K texts to one prompt.

        Raises:
            Refused: with 500, where the reward fails on them. What it said is in the log only.
        """
        done: asyncio.Future[np.ndarray | _Failed] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Job(prompt, tuple(texts), done))
        result = await done
        if not isinstance(result, _Failed):
            return result
        what, cause = _described(result.error)
        raise self.refused(what, cause)

    def refused(self, what: str, cause: BaseException | None = None) -> Refused:
        """What a client is told when the reward gives no number; the log is told why.

        Args:
            what: for the log, without anybody's words.
            cause: its traceback is logged.
        """
        self._metrics.reward_failures.inc()
        _log.error(
            "request %s: the reward %s failed: %s", request_id(), self.name, what, exc_info=cause
        )
        return Refused(
            500,
            f"the reward {self.name} failed on the candidates; the server's log says why.",
            "reward_error",
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs, size = [await self._jobs.get()], 0
            size = len(jobs[0].texts)
            while size < self._most and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
                size += len(jobs[-1].texts)
            jobs = [job for job in jobs if not job.done.done()]  # whoever left needs no score
            results = await loop.run_in_executor(self._thread, self._all_of, jobs)
            for job, result in zip(jobs, results, strict=True):
                if not job.done.done():
                    job.done.set_result(result)

    # --- in the thread ---

    def _all_of(self, jobs: Sequence[_Job]) -> list[Any]:
        """Rewards of each job, or what went wrong; jobs of as many texts go in one call."""
        sizes: dict[int, list[int]] = {}
        for place, job in enumerate(jobs):
            sizes.setdefault(len(job.texts), []).append(place)
        results: list[Any] = [None] * len(jobs)
        for places in sizes.values():
            for place, result in zip(
                places, self._together([jobs[p] for p in places]), strict=True
            ):
                results[place] = result
        return results

    def _together(self, jobs: list[_Job]) -> list[Any]:
        try:
            return list(self._scored(jobs))
        except BaseException as error:  # the thread is the reward's: SystemExit is its failure too
            if len(jobs) == 1:
                return [_Failed(error)]
        # One request's text must not cost another its answer.
        return [result for job in jobs for result in self._together([job])]

    def _scored(self, jobs: Sequence[_Job]) -> np.ndarray:
        start = time.perf_counter()
        texts = [list(job.texts) for job in jobs]
        rewards = np.asarray(self._reward([job.prompt for job in jobs], texts), dtype=float)
        self._metrics.reward_seconds.observe(time.perf_counter() - start)
        self._metrics.scored.inc(sum(map(len, texts)))
        if rewards.shape != (len(jobs), len(texts[0])):
            raise ValueError(
                f"{self.name} rewards have shape {rewards.shape} for {len(jobs)} prompts × "
                f"{len(texts[0])} candidates; one number per candidate is needed."
            )
        return rewards


def _described(error: BaseException) -> tuple[str, BaseException | None]:
    """What happened and the error to trace, neither quoting prompts."""
    if isinstance(error, RewardRaised | RewardUnfit):
        return error.brief, error.__cause__
    return f"{type(error).__name__}: {error}", error
