"""The cluster: which one, how many workers, and whether it can hold even one of them."""

import dataclasses
import math
import os
import socket
from importlib.util import find_spec
from typing import Any

__all__ = ["Workers", "connect", "require_ray"]

PATIENCE = 5.0
"""Seconds that the head of a cluster may take to accept a connection."""
OBJECT_STORE = 512 * 2**20
"""Bytes of shared memory of a local cluster; what is larger goes to disk."""

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
MOST = 10_000
"""Workers, and CPUs or GPUs of each. A larger number is taken for a slip."""
MOST_HERE = 1024
"""CPUs that a local cluster may pretend to have; Ray's start fails where they are far too many."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """How many processes answer, and what each of them occupies.

    Raises:
        ValueError: no worker, no CPU, part of a GPU beyond the first, or more than 10,000 of them.

    Example:
        >>> Workers(8, gpus=1).need
        {'CPU': 1.0, 'GPU': 1.0}
    """

    count: int = 2
    """Processes. 1 … 10,000."""
    cpus: float = 1.0
    """CPUs of each. > 0, ≤ 10,000."""
    gpus: float = 0.0
    """GPUs of each: 0, a fraction below 1 to share one, or a whole number."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"workers is {self.count}; at least 1 is needed to do the work.")
        if not self.cpus > 0:
            raise ValueError(f"cpus per worker is {self.cpus}; more than 0 is needed.")
        if not self.gpus >= 0 or (1 < self.gpus <= MOST and self.gpus != int(self.gpus)):
            raise ValueError(
                f"gpus per worker is {self.gpus}; 0, a fraction below 1 or a whole number is "
                "needed, because only one GPU can be shared."
            )
        for what, number in (
            ("workers", self.count),
            ("cpus per worker", self.cpus),
            ("gpus per worker", self.gpus),
        ):
            if number > MOST:
                raise ValueError(
                    f"{what} is {number}; at most {MOST} is needed, more is taken for a slip."
                )

    @property
    def need(self) -> dict[str, float]:
        """What a machine must have for one worker."""
        return {"CPU": float(self.cpus)} | ({"GPU": float(self.gpus)} if self.gpus else {})


def require_ray() -> Any:
    """The `ray` package.

    Raises:
        ImportError: it is not installed.
    """
    if find_spec("ray") is None:
        raise ImportError(
            "cluster is ray, but the package 'ray' is not installed: pip install 'infalign[ray]'",
            name="ray",
        )
    # Said before the first import: Ray reads it then. Neither is sent anything nor shown a banner.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else its C++ side writes warnings of no consequence into the progress bar.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    import ray.data

    return ray


def connect(address: str = "local", workers: Workers | None = None) -> None:
    """Be part of a cluster; in one already, stay there.

    Args:
        address: `local` starts a cluster of this machine alone, which ends with this process;
            `auto` joins the one this machine belongs to (`RAY_ADDRESS`, or `ray start`); else
            `host:port` of a cluster's head.
        workers: what will be asked of it.

    Raises:
        ImportError: Ray is not installed.
        ValueError: an address of another form; no machine here that could hold one worker; more
            workers than a local cluster can have.
        ConnectionError: nothing answers there, or Ray does not start here.
    """
    ray, workers = require_ray(), workers or Workers()
    if not ray.is_initialized():
        if address == "local":
            _start(ray, workers)
        else:
            _require_answer(address)
            ray.init(address, **QUIET)
    _require_room(ray, workers)


def _start(ray: Any, workers: Workers) -> None:
    # Workers are counted, not bound, so more of them than cores is the user's to choose.
    here, cpus = os.cpu_count() or 1, math.ceil(workers.count * workers.cpus)
    if cpus > max(here, MOST_HERE):
        raise ValueError(
            f"cluster.workers is {workers.count} and cluster.cpus_per_worker {workers.cpus:g}: "
            f"{cpus} CPUs, but this machine has {here}. With `address: local` at most "
            f"{max(here, MOST_HERE)} are needed: lower cluster.workers, or join a cluster."
        )
    options = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, **QUIET}
    try:
        ray.init("local", num_cpus=max(here, cpus), **options)
    except Exception as error:  # whatever it is of: Ray raises its bare base
        raise ConnectionError(
            f"cluster.address is local, but Ray does not start on this machine ({error}). Lower "
            f"cluster.workers ({workers.count}), free memory or /dev/shm, or leave `cluster` out."
        ) from error


def _require_answer(address: str) -> None:
    """Ray itself would try for a minute."""
    found = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if found in ("", "auto", "local"):
        return
    host, _, port = found.rpartition(":")
    if not host or not port.isdigit() or "://" in found:
        raise ValueError(
            f"cluster.address is {found!r}; `local`, `auto` or host:port of the cluster's head is "
            "needed. A ray:// client is not supported: start this on the head, or with "
            "`ray job submit`."
        )
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError as error:
        raise ConnectionError(
            f"cluster.address is {found}, but nothing answers there ({error}). Start the cluster "
            "(`ray start --head`), mend the address, or take `address: local`."
        ) from error


def _require_room(ray: Any, workers: Workers) -> None:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(have.get(k, 0) >= n for k, n in workers.need.items()) for have in machines):
        return
    most = {k: max((float(have.get(k, 0)) for have in machines), default=0.0) for k in workers.need}
    raise ValueError(
        f"a worker needs {_written(workers.need)}, but the cluster's {len(machines)} machines "
        f"have at most {_written(most)} each. Lower cluster.cpus_per_worker or "
        "cluster.gpus_per_worker, or add a machine."
    )


def _written(resources: dict[str, float]) -> str:
    return " and ".join(f"{n:g} {k}" for k, n in resources.items())
