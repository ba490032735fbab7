"""The cluster: which one, how many workers, and whether it can hold even one of them."""

import dataclasses
import os
import socket
from importlib.util import find_spec
from typing import Any

__all__ = ["Workers", "connect", "require_ray"]

PATIENCE = 5.0
"""Seconds that the head of a cluster may take to accept a connection."""
OBJECT_STORE = 512 * 2**20
"""Bytes of shared memory of a local cluster; what is larger goes to disk."""


@dataclasses.dataclass(frozen=True)
class Workers:
    """How many processes answer, and what each of them occupies.

    Raises:
        ValueError: no worker, no CPU, or part of a GPU beyond the first.

    Example:
        >>> Workers(8, gpus=1).need
        {'CPU': 1.0, 'GPU': 1.0}
    """

    count: int = 2
    """Processes. ≥ 1."""
    cpus: float = 1.0
    """CPUs of each. > 0."""
    gpus: float = 0.0
    """GPUs of each: 0, a fraction below 1 to share one, or a whole number."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"workers is {self.count}; at least 1 is needed to do the work.")
        if not self.cpus > 0:
            raise ValueError(f"cpus per worker is {self.cpus}; more than 0 is needed.")
        if not self.gpus >= 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ValueError(
                f"gpus per worker is {self.gpus}; 0, a fraction below 1 or a whole number is "
                "needed, because only one GPU can be shared."
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
        ValueError: an address of another form; no machine here that could hold one worker.
        ConnectionError: nothing answers there.
    """
    ray, workers = require_ray(), workers or Workers()
    if not ray.is_initialized():
        quiet = {"log_to_driver": False, "logging_level": "error"}
        if address == "local":
            # Workers are counted, not bound, so more of them than cores is the user's to choose.
            cpus = max(os.cpu_count() or 1, -int(-workers.count * workers.cpus // 1))
            ray.init(
                "local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                **quiet,
            )
        else:
            _require_answer(address)
            ray.init(address, **quiet)
    _require_room(ray, workers)


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
