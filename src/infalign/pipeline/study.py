"""A study: one experiment with its folder, its prompts, its policy, and how it is measured.

There are two kinds. Where every response can be listed (`choice_lm`), laws are tables and nothing
is sampled: :mod:`.enumerated`. Where text is free, everything goes through stored rollouts:
:mod:`.sampled`. The stages in :mod:`infalign.pipeline` see only this contract.
"""

import abc
import functools
import json
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from infalign import evaluation
from infalign.config import Experiment
from infalign.decoding import Selection, TextProcedure
from infalign.pipeline import build
from infalign.pipeline.measurement import Measurement, Split, at_kl, reach
from infalign.pipeline.ownership import refuse_other, saved
from infalign.pipeline.show import Show
from infalign.prompts import Prompt
from infalign.quantile.procedures import BestOfN, Procedure, RankProcedure
from infalign.quantile.transforms import Transform
from infalign.report import (
    AnswerPair,
    CalibrationCheck,
    Curve,
    DecompositionRow,
    Estimate,
    IdealRow,
    Stage,
)
from infalign.rollouts.shards import explained, write_atomically
from infalign.training.rewards import TrainingReward
from infalign.training.solver import Problem

__all__ = ["TREATMENT", "Study"]

TREATMENT = "InfAlign"  # trained on the calibrated and transformed reward
POLICIES = {"infalign": TREATMENT, "calibrated": "calibrated only", "raw": "raw reward"}
"""Folder of a trained policy → its name in the report."""
PACKAGES = ("infalign", "torch", "transformers", "peft", "numpy", "scipy", "pyarrow")


class Study(abc.ABC):
    """What the stages need of an experiment; each kind of policy has its own."""

    def __init__(self, experiment: Experiment, show: Show) -> None:
        self.experiment, self.show = experiment, show
        self.folder = Path(experiment.output)
        self.procedure = build.procedure_of(experiment.procedure)
        self.transform: Transform = build.transform_of(
            experiment.transform, self.procedure, experiment.training
        )
        refuse_other(self.folder, experiment)

    @functools.cached_property
    def prompts(self) -> dict[str, list[Prompt]]:
        """Training and held-out prompts, as the policy is asked them."""
        train, test = build.prompts_of(self.experiment.prompts)
        if any(prompt.messages for prompt in (*train, *test)):
            train, test = (build.rendered(side, self.renderer) for side in (train, test))
        return {"train": train, "held-out": test}

    @functools.cached_property
    def policy(self) -> Any:
        """The policy, as the reference until an adapter is loaded."""
        return build.policy_of(self.experiment.policy, self.threads)

    @functools.cached_property
    def renderer(self) -> Any:
        """Writes chat prompts as text."""
        return self.policy

    @functools.cached_property
    def reward(self) -> Any:
        """The training reward."""
        return build.reward_of(self.experiment.reward)

    @functools.cached_property
    def judges(self) -> dict[str, Any]:
        """Name → reward: the training reward first, then gold, then auditors."""
        gold = () if self.experiment.gold is None else (self.experiment.gold,)
        others = [build.reward_of(section) for section in (*gold, *self.experiment.auditors)]
        return {reward.name: reward for reward in (self.reward, *others)}

    threads: int | None = None
    """CPU threads of this process; None: the machine's cores."""

    @property
    def policies(self) -> tuple[str, ...]:
        """Folders of the policies to train: the treatment first."""
        return ("infalign", *reversed(self.experiment.baselines))

    @property
    def ids(self) -> list[str]:
        """Ids of the training prompts."""
        return [prompt.id for prompt in self.prompts["train"]]

    @property
    def text_procedure(self) -> TextProcedure | None:
        """The procedure, where it is one that ranks do not tell."""
        return self.procedure if isinstance(self.procedure, TextProcedure) else None

    @property
    def theory(self) -> Procedure | None:
        """The procedure on [0,1], which says what can be won; None where there is none."""
        procedure = self.procedure
        if isinstance(procedure, TextProcedure):
            return procedure.procedure if isinstance(procedure, Selection) else None
        return procedure

    @property
    def rank_procedure(self) -> RankProcedure:
        """The procedure, where ranks tell it."""
        assert isinstance(self.procedure, RankProcedure), "asked of a procedure on text"
        return self.procedure

    @property
    def procedures(self) -> dict[str, RankProcedure]:
        """Measured from samples: one response, the one trained for, and best-of-N for every N.

        The one trained for is not among them where ranks do not tell it.
        """
        own = [self.procedure] if isinstance(self.procedure, RankProcedure) else []
        wanted = [BestOfN(1), *own, *(BestOfN(n) for n in self.experiment.evaluate.ns)]
        return {procedure_name(procedure): procedure for procedure in wanted}

    def beta_of(self, reward: TrainingReward) -> float:
        """The experiment's β, or the one at which the exact tilt has the experiment's KL."""
        training = self.experiment.training
        if training.beta is not None:
            return training.beta
        assert training.kl is not None, "the experiment file gives exactly one of kl and beta"
        return reward.beta_for_kl(training.kl, self.ids)

    def rng(self, *stage: str) -> np.random.Generator:
        """The random numbers of one stage: another stage's do not move them."""
        words = [int.from_bytes(word.encode(), "big") % 2**63 for word in stage]
        return np.random.default_rng([self.experiment.seed, *words])

    # --- what each kind of study does its own way ---

    @abc.abstractmethod
    def roll_out(self) -> None:
        """Make what the reference says, on both sides; resumes."""

    @abc.abstractmethod
    def score(self) -> None:
        """Reward it by every judge that needs it; resumes."""

    @abc.abstractmethod
    def reference_rewards(self) -> np.ndarray:
        """Training rewards' reward of the reference's responses to the training prompts, P × K."""

    @abc.abstractmethod
    def problem(self, target: str) -> Problem:
        """What `raw`, `calibrated` or `infalign` maximises, at the experiment's KL or β."""

    @abc.abstractmethod
    def measure(self, name: str, step: int, *, last: bool) -> Measurement:
        """Measure the policy as it is now; `name` and `step` are where its samples are kept.

        Where judging is dear, only the last checkpoint is judged by all.
        """

    @abc.abstractmethod
    def ideal(self, kl: float) -> tuple[IdealRow, ...]:
        """What exact alignment of the reference would win, nothing trained."""

    @abc.abstractmethod
    def predictions(self, kls: Sequence[float]) -> tuple[Curve, ...]:
        """Win rate after decoding against KL of each transform, as predicted."""

    @abc.abstractmethod
    def ceilings(self, target: str, kl: float) -> tuple[DecompositionRow, ...]:
        """What bounds a policy at this KL from above, from the limit down to what is known."""

    @abc.abstractmethod
    def calibration_check(self) -> CalibrationCheck:
        """Rewards before and after calibration."""

    @abc.abstractmethod
    def answers(self, names: Sequence[str], steps: dict[str, int]) -> tuple[AnswerPair, ...]:
        """Decoded answers of the reference and the policies, side by side."""

    @abc.abstractmethod
    def facts(self) -> dict[str, str]:
        """What a reader should know first."""

    # --- said of the experiment as a whole ---

    curve_note = ""
    """How the predicted curves were made."""

    equal_kl_note = ""
    """How policies were brought to a common KL; empty: along their checkpoints."""

    def win_rate_at(
        self, name: str, path: Sequence[Measurement], key: tuple[Split, str, str], kl: float
    ) -> np.ndarray | None:
        """Win rate of each prompt at a common KL; None where the policy does not reach it.

        Args:
            name: the policy's folder.
            path: its measurements.
            key: split, judge, procedure.
            kl: mean over the split's prompts, nats.
        """
        return at_kl(path, *key, kl)

    def reach(self, path: Sequence[Measurement], split: Split) -> float:
        """The largest KL :meth:`win_rate_at` knows. Nats."""
        return reach(path, split)

    @property
    def procedure_label(self) -> str:
        """The procedure's name in measurements."""
        return self.procedure.name if self.text_procedure else procedure_name(self.rank_procedure)

    def transform_name(self, target: str) -> str:
        """The prediction that belongs to a policy."""
        own = "decoded win rate" if self.text_procedure else self.transform.name
        return {"raw": "raw", "calibrated": "identity"}.get(target, own)

    def reference_fingerprint(self) -> str:
        """Hash of the reference policy."""
        with self.policy.reference():
            return self.policy.fingerprint

    def check(self) -> None:
        """Load what the experiment names, and refuse what cannot work before long work starts.

        Only then is the folder this experiment's: a mistyped path leaves nothing behind.
        """
        from infalign.pipeline.checks import check_study

        check_study(self)
        with explained("the output folder", self.folder):
            path = self.folder / "experiment.yaml"
            write_atomically(path, saved(self.experiment).encode(), self.folder)

    # --- cost ---

    @contextmanager
    def timed(self, stage: str, note: str = "") -> Iterator[dict[str, Any]]:
        """Adds the block's wall time to the stage's, over all sittings."""
        extra: dict[str, Any] = {}
        start = time.perf_counter()
        try:
            yield extra
        finally:
            self._add_cost(stage, time.perf_counter() - start, {"note": note} | extra)

    def _add_cost(self, stage: str, seconds: float, extra: dict[str, Any]) -> None:
        costs = self.costs()
        before = costs.get(stage, {"seconds": 0.0})
        costs[stage] = before | {"seconds": before["seconds"] + seconds} | extra
        text = json.dumps(costs, indent=1)
        write_atomically(self.folder / "cost.json", text.encode(), self.folder)

    def costs(self) -> dict[str, dict[str, Any]]:
        """Stage → seconds and counts so far."""
        path = self.folder / "cost.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def cost_rows(self) -> tuple[Stage, ...]:
        """The same as report rows."""
        return tuple(Stage(name, **values) for name, values in self.costs().items())


def procedure_name(procedure: RankProcedure) -> str:
    """How reports name it; a single response is `standard`, whatever picks it."""
    return "standard" if procedure.candidates == 1 else procedure.name


def recorded(found: evaluation.Estimate) -> Estimate:
    """An estimate as the report keeps it."""
    return Estimate(found.value, found.se, found.n)


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
