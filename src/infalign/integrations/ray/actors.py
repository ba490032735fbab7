"""Chunks to worker processes, results back as they come: Ray Data, made safe against both deaths.

A process that dies takes nothing along: Ray starts another and gives it the same chunk. A chunk
that kills every process it meets would go round for ever, so deaths are counted. An exception is
no death: it travels back as a result and is raised here, once.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import socket
import sys
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pyarrow as pa

from infalign.integrations.ray.cluster import Workers, require_ray

__all__ = ["Task", "results"]

SCHEMA = pa.schema({"index": pa.int64(), "data": pa.large_binary()})


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker does. Travels pickled, by reference where its functions are importable."""

    name: str
    """In messages."""
    make: Callable[[], Any]
    """Called once in each worker; what it returns stays there."""
    check: Callable[[Any], None]
    """Raises where a worker has made another thing than the rest."""
    work: Callable[[Any, Any], Any]
    """(what was made, a part) → its result."""
    tries: int = 4
    """Processes that may die over one part before it is given up."""


class Worker:
    """The actor: makes its policy or reward at the first chunk, then answers chunk after chunk."""

    def __init__(self, task: bytes, attempts: Any, run: str, path: list[str]) -> None:
        # What can be imported where this was started can be imported here.
        sys.path += [folder for folder in path if folder not in sys.path]
        self._sent, self._attempts, self._run = task, attempts, run
        self._task: Task | None = None
        self._made: Any = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [
            {"index": row["index"], "data": self._answer(row["index"], row["data"])}
            for row in batch.to_pylist()
        ]
        return pa.Table.from_pylist(rows, SCHEMA)

    def _answer(self, index: int, data: bytes) -> bytes:
        import ray

        try:
            # Unpickled here, so that what cannot be imported is said like any other error.
            task = self._task = self._task or pickle.loads(self._sent)
            tried: Any = ray.get(self._attempts.begin.remote(self._run, index))
            return _pickled((self._result(task, tried, pickle.loads(data)), None))
        except Exception as error:
            return _pickled((None, _portable(error)))

    def _result(self, task: Task, tried: int, part: Any) -> Any:
        if tried > task.tries:
            raise ChildProcessError(
                f"{task.tries} workers died one after another over the same chunk of {task.name}. "
                "Most often that is memory: lower the chunk (rollouts.chunk), or have fewer "
                "workers on a machine."
            )
        if self._made is None:
            made = task.make()
            task.check(made)
            self._made = made
        return task.work(self._made, part)


class Attempts:
    """How often each part of each run was begun; outlives the workers."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[str, int]] = Counter()

    def begin(self, run: str, index: int) -> int:
        """Count one more."""
        self._begun[run, index] += 1
        return self._begun[run, index]


def results(task: Task, parts: Iterable[Any], workers: Workers) -> Generator[tuple[int, Any]]:
    """(place in `parts`, result) of every part, in the order in which they are finished.

    Args:
        task: what is done with each part.
        parts: picklable; sent to the cluster's memory one by one before the first is worked on.
        workers: how many, and what they occupy. Be connected to a cluster before.

    Raises:
        Exception: what a worker raised, of the same type, caused by its traceback.
        ValueError: the task cannot be pickled.
        ChildProcessError: one part has cost four processes their lives.
    """
    ray = require_ray()
    sent = _sent(task)
    tables = (
        pa.Table.from_pylist([{"index": index, "data": _pickled(part)}], SCHEMA)
        for index, part in enumerate(parts)
    )
    # One block per part: a result leaves its worker the moment it is there.
    blocks = [ray.put(table) for table in tables]
    if not blocks:
        return
    path = [os.path.abspath(folder) for folder in sys.path]
    found = ray.data.from_arrow_refs(blocks).map_batches(
        Worker,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_args=(sent, _attempts(ray), uuid.uuid4().hex, path),
        **placed(workers, min(workers.count, len(blocks))),
    )
    quieten(found)
    batches = found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    # Closed by name, or workers would go on while whoever catches an error holds its traceback.
    with contextlib.closing(iter(batches)) as batches:
        for batch in batches:
            for row in batch.to_pylist():
                result, failure = pickle.loads(row["data"])
                if failure is not None:
                    raise failure[0] from RemoteTraceback(failure[1])
                yield row["index"], result


def placed(workers: Workers, count: int) -> dict[str, Any]:
    """Where and how many, as `map_batches` wants to be told."""
    ray = require_ray()
    # Two parts: one at work, one waiting. More would leave the others idle at the end.
    actors = ray.data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2)
    return {"compute": actors, "num_cpus": workers.cpus, "num_gpus": workers.gpus or None}


def quieten(dataset: Any) -> None:
    """No bars and no logs of Ray's own, and no deadline: a chunk may take its time."""
    context = dataset.context
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _attempts(ray: Any) -> Any:
    """One for all runs of this process, on its machine, so that it dies with it and not before."""
    context = ray.get_runtime_context()
    node = context.get_node_id()
    return _counter(node, context.get_job_id())


@functools.lru_cache(maxsize=1)
def _counter(node: str, job: str) -> Any:
    ray = require_ray()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Attempts).options(scheduling_strategy=here, **options).remote()


def _pickled(value: Any) -> bytes:
    from ray import cloudpickle  # what a notebook defines has no module to import it from

    return cloudpickle.dumps(value)  # pyright: ignore[reportPrivateImportUsage]


def _sent(task: Task) -> bytes:
    try:
        return _pickled(task)
    except Exception as error:
        raise ValueError(
            f"{task.name} cannot be sent to a worker ({type(error).__name__}: {error}). Give "
            "`make=`, a function without arguments that makes it there."
        ) from error


def _portable(error: Exception) -> tuple[Exception, str]:
    """The error and its traceback; a RuntimeError that names it where it cannot be pickled."""
    written = traceback.format_exc()
    try:
        error = pickle.loads(_pickled(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"Raised in worker {os.getpid()} on {socket.gethostname()}.")
    return error, written


class RemoteTraceback(Exception):
    """Where in a worker an error was raised; the cause of the same error raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])
