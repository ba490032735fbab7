"""The methods on free text: each as a solver and a problem on the one store of rollouts."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from benchmarks.arena.store import Store
from benchmarks.frontier.text_training import Paired, StoredLoss, StoredReward
from benchmarks.frontier.text_world import Stored, TextWorld
from benchmarks.methods import METHODS, shows_best
from benchmarks.methods.method import Reinforced
from benchmarks.methods.raft import RAFT
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.transforms import Exponential, Identity, Transform
from infalign.training import Descent, Fit, Online, Problem, Solver
from infalign.training.rewards import CalibratedReward, RawReward, TrainingReward

__all__ = ["TITLES", "Schedule", "prepared"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The compute every method gets."""

    steps: int = 16
    """Updates."""
    learning_rate: float = 1e-3
    """AdamW's, falling by a cosine."""
    prompts_per_step: int = 8
    """Prompts in one step."""
    k: int = 16
    """Responses to each of them: of the stored ones, or sampled anew by `Online`."""
    points: tuple[int, ...] = (8, 16)
    """Updates after which a policy is measured; on held-out prompts at the last of them alone."""
    kl: float = 1.0
    """Mean KL that the optimum has on the stored rollouts. Nats."""

    @property
    def descent(self) -> Descent:
        """The same as steps of the house's solvers."""
        return Descent(
            steps=self.steps,
            learning_rate=self.learning_rate,
            schedule="cosine",
            warmup=min(3, self.steps // 2),
            prompts_per_step=self.prompts_per_step,
        )


ONLINE = MappingProxyType({"optimal-online": "optimal", "raw-online": "raw"})
"""Trained on the policy's own samples, by the same training reward."""
PAIRS = "-pairs"
"""Ends the names of methods whose tilt is fitted by :class:`Paired`; calibration alone is IPO."""
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "optimal": "InfAlign, optimal Φ",
        "exponential": "InfAlign, exp(±10u)",
        "identity": "calibrated only",
        "raw": "raw reward (= reward-weighted SFT)",
        "normalised": "reward normalised per prompt",
        "log_sigmoid": "log-sigmoid-centred reward",
        "ipo": "IPO",
        "dpo": "DPO",
        "bonbon": "BoNBoN",
        "raft": "SFT on best-of-n",
        "qrpo": "QRPO, finite K",
        "qrpo_published": "QRPO as published",
        "optimal-pairs": "InfAlign, optimal Φ, by pairs",
        "exponential-pairs": "InfAlign, exp(±10u), by pairs",
        "raw-pairs": "raw reward, by pairs",
        "normalised-pairs": "reward normalised per prompt, by pairs",
        "log_sigmoid-pairs": "log-sigmoid-centred reward, by pairs",
        "optimal-online": "InfAlign, optimal Φ, online",
        "raw-online": "raw reward, online",
    }
)
STRENGTHS = MappingProxyType({"dpo": 0.5, "bonbon": 4, "raft": 4})
"""Of methods whose dial is not the KL of their optimum."""
CALIBRATED = ("optimal", "exponential", "identity")


def prepared(
    name: str, world: TextWorld, store: Stored, schedule: Schedule
) -> tuple[Solver, Problem]:
    """The solver that trains a method, and what it is given.

    RL on a training reward goes by `Fit` of its optimum, π_ref·exp(Φ/β)/Z on the K rollouts; β is
    the one at which that optimum has the schedule's KL. On the raw reward this is reward-weighted
    SFT. Names that end in `-pairs` go by regression on pairs instead. For the calibrated rewards Φ
    is the posterior mean with each rollout left out of its own calibration.
    """
    descent, k = schedule.descent, schedule.k
    if name in ONLINE:
        reward = _new_responses(ONLINE[name], world, store, schedule.kl)
        return Online(descent, k), _problem(world, store, reward, schedule.kl)
    listed = Store(np.full(store.rewards.shape, 1 / world.k), store.rewards, world.k)
    phi = _training_rewards(name.removesuffix(PAIRS), world, store, listed, schedule.kl)
    if phi is not None:
        problem = _problem(world, store, StoredReward(world.ids, phi), schedule.kl)
        if name.endswith(PAIRS):
            return StoredLoss(Paired(phi / problem.beta), listed, descent, k), problem
        return Fit(descent, k=k), problem
    method = METHODS[name].make(world.procedure, STRENGTHS.get(name, schedule.kl))
    if isinstance(method, RAFT):
        law = np.maximum(method.tables(listed)["best"], 1e-12)
        reward = StoredReward(world.ids, np.log(law))
        return Fit(descent, k=k), Problem(world.prompts["train"], reward, 1.0, store.rollouts)
    problem = _problem(world, store, StoredReward(world.ids, store.rewards), schedule.kl)
    return StoredLoss(method, listed, descent, k), problem


def _transform(name: str, world: TextWorld, kl: float) -> Transform:
    if name == "optimal":
        return optimal_transform(world.procedure, kl=kl)
    steep = Exponential(10.0 if shows_best(world.procedure) else -10.0)
    return Identity() if name == "identity" else steep


def _training_rewards(
    name: str, world: TextWorld, store: Stored, listed: Store, kl: float
) -> Float[np.ndarray, "P K"] | None:
    """Φ of each stored rollout; None for methods that have none."""
    if name in CALIBRATED:
        transform = _transform(name, world, kl)
        below, ties = store.calibration.leave_one_out_ranks()
        return transform.posterior_mean(below, ties, world.k - 1)
    method = METHODS[name].make(world.procedure, STRENGTHS.get(name, kl))
    return method.training_rewards(listed) if isinstance(method, Reinforced) else None


def _new_responses(name: str, world: TextWorld, store: Stored, kl: float) -> TrainingReward:
    judge = world.judges["training"]()
    if name == "raw":
        return RawReward(judge, world.ids, store.rewards)
    return CalibratedReward(judge, store.calibration, _transform(name, world, kl))


def _problem(world: TextWorld, store: Stored, reward: TrainingReward, kl: float) -> Problem:
    beta = reward.beta_for_kl(kl, world.ids)
    return Problem(world.prompts["train"], reward, beta, store.rollouts)
