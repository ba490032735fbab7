"""Where rollouts are drawn and scored: this process, or the workers of a cluster."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from infalign.config.section import NAME_ALONE, Section, require

__all__ = ["Cluster", "RayCluster"]

MOST = 10_000
"""Workers, and CPUs or GPUs of each."""


@dataclass(frozen=True, kw_only=True)
class RayCluster(Section):
    """Worker processes on this machine or many; needs `pip install 'infalign[ray]'`."""

    address: str = "local"
    """`local`: workers on this machine; `auto`: the cluster it belongs to; or host:port."""
    workers: int = 2
    """Processes, each with a policy or reward of its own. 1 … 10,000."""
    cpus_per_worker: int = 1
    """CPUs, and threads, of each. 1 … 10,000."""
    gpus_per_worker: float = 0
    """GPUs of each: 0, a fraction below 1 to share one, or a whole number."""
    kind: Literal["ray"] = "ray"

    def __post_init__(self) -> None:
        require(
            self.address in ("local", "auto") or bool(re.fullmatch(r"[^/\s]+:\d+", self.address)),
            f"address is {self.address!r}; `local`, `auto` or host:port of the cluster's head is "
            "needed. A ray:// client is not supported: start the command on the head, or with "
            "`ray job submit`",
        )
        require(self.workers >= 1, f"workers is {self.workers}; at least 1 must do the work")
        require(
            self.cpus_per_worker >= 1,
            f"cpus_per_worker is {self.cpus_per_worker}; at least 1 is needed",
        )
        gpus = self.gpus_per_worker
        require(
            gpus >= 0 and (gpus < 1 or gpus > MOST or gpus == int(gpus)),
            f"gpus_per_worker is {gpus}; 0, a fraction below 1 or a whole number is needed, "
            "because only one GPU can be shared",
        )
        for name in ("workers", "cpus_per_worker", "gpus_per_worker"):
            number = getattr(self, name)
            require(
                number <= MOST,
                f"{name} is {number}; at most {MOST} is needed, more is taken for a slip",
            )


Cluster = Annotated[RayCluster, NAME_ALONE]
