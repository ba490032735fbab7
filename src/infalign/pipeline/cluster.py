"""Rollouts and rewards of a study, by this process or by the workers of its cluster.

Either way the stores come out the same, which is why a folder does not remember which it was.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infalign import rollouts
from infalign.config import Experiment
from infalign.config.cluster import RayCluster
from infalign.pipeline import build
from infalign.pipeline.engines import drawer_of
from infalign.pipeline.show import Show, Silent
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler, Sampling
from infalign.rollouts import Progress, RolloutStore

if TYPE_CHECKING:
    from infalign.integrations.ray import Workers
    from infalign.pipeline.sampled import SampledStudy
    from infalign.pipeline.study import Study

__all__ = ["check_cluster", "collect", "score"]


def check_cluster(section: RayCluster | None) -> None:
    """Refuse a cluster that is not there before anything long is done.

    Raises:
        ImportError: Ray is not installed.
        OSError: nothing answers at its address.
        ValueError: no machine of it can hold a worker.
    """
    if section is None:
        return
    from infalign.integrations.ray.cluster import require_ray

    require_ray()
    if section.address != "local":  # that one is started when there is work for it
        _join(section)


def collect(
    study: "SampledStudy",
    k: int,
    prompts: Sequence[Prompt],
    store: RolloutStore,
    progress: Progress,
) -> None:
    """K responses of the reference to each prompt, into the store."""
    experiment, section = study.experiment, study.experiment.cluster
    chunk = experiment.rollouts.chunk
    if section is None:
        rollouts.collect(study.drawer, prompts, k, store, chunk=chunk, progress=progress)
        return
    from infalign.integrations.ray import rollout

    workers = _join(section)
    make = MakeReference(experiment, study.prompts, section.cpus_per_worker, os.getcwd())
    options: dict[str, Any] = {"make": make, "chunk": chunk, "progress": progress}
    rollout(study.drawer, prompts, k, store, workers=workers, **options)


def score(
    study: "Study", name: str, prompts: Sequence[Prompt], store: RolloutStore, progress: Progress
) -> None:
    """The rewards of one judge, into the store."""
    section, judge = study.experiment.cluster, study.judges[name]
    if section is None:
        rollouts.score(store, judge, prompts, progress)
        return
    from infalign.integrations.ray import reward

    workers = _join(section)
    make = MakeReward(_section_of(study, name), os.getcwd())
    reward(store, judge, prompts, progress, workers=workers, make=make)


def _join(section: RayCluster) -> "Workers":
    from infalign.integrations.ray import Workers, connect

    workers = Workers(section.workers, section.cpus_per_worker, section.gpus_per_worker)
    connect(section.address, workers)
    return workers


def _section_of(study: "Study", name: str) -> Any:
    experiment = study.experiment
    sections = [experiment.reward, experiment.gold, *experiment.auditors]
    made = zip(study.judges, filter(None, sections), strict=True)
    return dict(made)[name]


@dataclasses.dataclass(frozen=True)
class MakeReference:
    """Makes who draws the experiment's reference in a worker: its policy, or its engine."""

    experiment: Experiment
    prompts: dict[str, list[Prompt]]
    """All of them: an engine is tried on some before it draws any."""
    threads: int
    folder: str
    """Where the command was started: what relative paths mean."""
    show: Show = dataclasses.field(default_factory=Silent)

    @functools.cached_property
    def policy(self) -> Any:
        """The local policy, with its adapter."""
        return build.policy_of(self.experiment.policy, self.threads)

    def __call__(self) -> Sampler:
        _stand_in(self.folder)
        return Reference(self.policy, drawer_of(self))


@dataclasses.dataclass(frozen=True)
class MakeReward:
    """Makes a reward of the experiment in a worker."""

    section: Any
    folder: str
    """Where the command was started: where a user's module lies."""

    def __call__(self) -> Reward:
        _stand_in(self.folder)
        return build.reward_of(self.section)


class Reference:
    """Who draws a policy's reference: the policy's adapter is switched off in every call."""

    def __init__(self, policy: Any, drawer: Any) -> None:
        self._policy, self._drawer = policy, drawer

    @property
    def name(self) -> str:
        """The drawer's."""
        return self._drawer.name

    @property
    def fingerprint(self) -> str:
        """Of the weights without the adapter, and of the engine."""
        with self._policy.reference():
            return self._drawer.fingerprint

    @property
    def sampling(self) -> Sampling:
        """The drawer's."""
        return self._drawer.sampling

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K responses of the reference to each prompt."""
        with self._policy.reference():
            return self._drawer.sample(prompts, k, rng)


def _stand_in(folder: str) -> None:
    """Work where the command was started, on machines that have that folder."""
    if Path(folder).is_dir():
        os.chdir(folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)
