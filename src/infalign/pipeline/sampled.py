"""A study on free text: rollouts in stores, quantiles from K of them, win rates from samples.

Three stores keep roles apart. `rollouts` holds the K reference responses that calibrate and train.
`judged/reference` holds fresh reference responses to both sides of the split, against which every
policy is judged. `judged/<policy>-<step>` holds what a trained policy said when it was measured.
Nothing is ever judged by the samples that calibrated or trained it.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from infalign import evaluation
from infalign.evaluation import ideal_table, win_rate_samples
from infalign.pipeline import cluster, decoded, engines
from infalign.pipeline.measurement import SPLITS, Measurement, Split
from infalign.pipeline.study import POLICIES, Study, procedure_name, recorded
from infalign.prompts import Prompt
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.finite import finite_win_rate, largest_kl
from infalign.quantile.procedures import BestOfN
from infalign.quantile.transforms import Exponential, Identity, Log, Transform
from infalign.quantile.win_rate import frontier
from infalign.report import (
    Answer,
    AnswerPair,
    CalibrationCheck,
    Curve,
    DecompositionRow,
    IdealRow,
)
from infalign.rollouts import RolloutStore, collect
from infalign.training.rewards import CalibratedReward, RawReward, TrainingReward
from infalign.training.solver import Problem

__all__ = ["SampledStudy"]

SHOWN = 6
"""Held-out prompts whose answers are shown."""
DIVERGENCES = 16
"""Samples per prompt on which KL is measured; its Rao–Blackwellised noise is small."""


class SampledStudy(Study):
    """Everything from stored samples."""

    curve_note = (
        "Limit and transforms: theory for continuous rewards and perfect calibration. Raw: exact "
        "tilt of the stored rollouts of the training prompts, cross-fitted."
    )
    drawer = functools.cached_property(engines.drawer_of)
    """Who draws the reference's rollouts."""

    @functools.cached_property
    def store(self) -> RolloutStore:
        """The reference rollouts that calibrate and train."""
        return self._open("rollouts", "rollouts")

    @functools.cached_property
    def fresh(self) -> RolloutStore:
        """Fresh reference samples, to judge against."""
        return self._open("judged/reference", "judged")

    def _open(self, folder: str, stage: str) -> RolloutStore:
        seed = int(self.rng(stage).integers(2**31))
        with self.policy.reference():
            return RolloutStore.open(self.folder / folder, self.drawer, seed)

    def measured(self, split: Split) -> list[Prompt]:
        """The prompts policies are measured on: some of the training prompts may do."""
        limit = self.experiment.evaluate.prompts if split == "train" else None
        return self.prompts[split][:limit]

    @property
    def _measured_prompts(self) -> list[Prompt]:
        return [prompt for split in SPLITS for prompt in self.measured(split)]

    def roll_out(self) -> None:
        train = self.prompts["train"]
        with self.policy.reference():
            with self.timed("rollouts") as extra, self.show.progress("rollouts") as progress:
                k = self.experiment.rollouts.k
                cluster.collect(self, k, train, self.store, progress)
                extra |= _counts(self.store, train)
            with (
                self.timed("rollouts to judge against") as extra,
                self.show.progress("rollouts to judge against") as progress,
            ):
                both = self._measured_prompts
                m = self.experiment.evaluate.samples
                cluster.collect(self, m, both, self.fresh, progress)
                extra |= _counts(self.fresh, both)

    def score(self) -> None:
        train = self.prompts["train"]
        with self.timed("rewards"):
            with self.show.progress(f"rewards: {self.reward.name}") as progress:
                cluster.score(self, self.reward.name, train, self.store, progress)
            self._judge(self.fresh, self._measured_prompts, "the reference", list(self.judges))
        decoded.keep_reference_answers(self)

    def _judge(
        self, store: RolloutStore, prompts: Sequence[Prompt], whose: str, judges: Sequence[str]
    ) -> None:
        for name in judges:
            with self.show.progress(f"rewards of {whose}: {name}") as progress:
                cluster.score(self, name, prompts, store, progress)

    @functools.cached_property
    def calibration(self) -> EmpiricalCalibration:
        """Quantiles among the K reference rollouts of each training prompt."""
        rewards = self.store.rewards(self.reward.name, self.prompts["train"], self._k)
        return EmpiricalCalibration(tuple(self.ids), rewards)

    @property
    def _k(self) -> int:
        return self.experiment.rollouts.k

    def reference_rewards(self) -> np.ndarray:
        return self.calibration.reference_rewards

    def training_reward(self, target: str) -> TrainingReward:
        """What a policy is trained on."""
        if target == "raw":
            rewards = self.calibration.reference_rewards
            return RawReward(self.reward, tuple(self.ids), rewards, calibration=self.calibration)
        transform = Identity() if target == "calibrated" else self.transform
        return CalibratedReward(self.reward, self.calibration, transform)

    def problem(self, target: str) -> Problem:
        reward = self.training_reward(target)
        rollouts = self.store.responses(self.prompts["train"], self._k)
        beta = decoded.beta_of(self, target, reward)
        watched = None if self.text_procedure else self.rank_procedure
        return Problem(self.prompts["train"], reward, beta, rollouts, watched)

    def measure(self, name: str, step: int, *, last: bool) -> Measurement:
        both = self._measured_prompts
        m, label = self.experiment.evaluate.samples, f"{POLICIES[name]}, step {step}"
        store = RolloutStore.open(
            self.folder / "judged" / f"{name}-{step:06d}",
            self.policy,
            int(self.rng("measure", name).integers(2**31)),
        )
        with self.show.progress(f"sample {label}") as progress:
            collect(self.policy, both, m, store, progress=progress)
        judges = list(self.judges) if last else [self.reward.name]
        self._judge(store, both, label, judges)
        kl, k1, wins = {}, {}, {}
        for split in SPLITS:
            kl[split], k1[split] = self._divergences(store, split)
            for judge in judges:
                for procedure in self.procedures.values():
                    key = split, judge, procedure_name(procedure)
                    wins[key] = self._win_rate(store, split, judge, procedure)
            wins |= decoded.win_rates(self, f"{name}-{step:06d}", store, split, judges)
        return Measurement(step, kl, k1, wins)

    def _divergences(self, store: RolloutStore, split: Split) -> tuple[np.ndarray, np.ndarray]:
        prompts = self.measured(split)
        responses = [row[:DIVERGENCES] for row in store.responses(prompts)]
        texts = [prompt.text for prompt in prompts]
        scores = self.policy.scores(texts, responses)
        k1 = scores.log_prob - scores.reference_log_prob
        return scores.kl.mean(1).numpy(), k1.mean(1).numpy()

    def _win_rate(
        self, store: RolloutStore, split: Split, judge: str, procedure: Any
    ) -> Float[np.ndarray, "P"]:
        prompts, m = self.measured(split), self.experiment.evaluate.samples
        ours, theirs = (s.rewards(self.reward.name, prompts, m) for s in (store, self.fresh))
        if judge == self.reward.name:
            return win_rate_samples(ours, theirs, procedure)
        judged = [s.rewards(judge, prompts, m) for s in (store, self.fresh)]
        return win_rate_samples(
            ours, theirs, procedure, policy_judged=judged[0], reference_judged=judged[1]
        )

    # --- predictions ---

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms compared with raw reward."""
        own = () if self.text_procedure else (self.transform,)
        return (Identity(), Log(), Exponential(10.0), *own)

    def _carries(self, kl: float) -> bool:
        """Whether half of the rollouts, less a jackknife group, can be tilted that far."""
        rewards = self.calibration.reference_rewards
        best = rewards >= rewards.max(1, keepdims=True)
        atoms = 3 * self._k // 8
        return kl < 0.9 * float(np.mean(np.log(atoms / np.minimum(best.sum(1), atoms))))

    def ideal(self, kl: float) -> tuple[IdealRow, ...]:
        if self.text_procedure is not None or not self._carries(kl):
            return ()
        rewards = self.calibration.reference_rewards
        procedures = [BestOfN(1), self.rank_procedure]
        found = ideal_table(rewards, self.transforms, procedures, kl, rng=self.rng("ideal"))
        rows: dict[str, dict[str, Any]] = {}
        for row in found:
            rows.setdefault(row.name, {"beta": row.beta})[row.procedure] = row.win_rate
        names = BestOfN(1).name, self.rank_procedure.name
        return tuple(
            IdealRow(name, kl, recorded(row[names[0]]), recorded(row[names[1]]), row["beta"])
            for name, row in rows.items()
        )

    def _raw_ideal(self, kl: float) -> evaluation.Estimate:
        """Win rate after decoding of the exact tilt of the stored rollouts by the raw reward."""
        rewards = self.calibration.reference_rewards
        return ideal_table(rewards, [], [self.rank_procedure], kl, rng=self.rng("ideal"))[
            0
        ].win_rate

    def predictions(self, kls: Sequence[float]) -> tuple[Curve, ...]:
        assert self.theory is not None, "nothing can be predicted without"
        curves = [
            Curve(t.name, tuple(kls), tuple(frontier(self.theory, kls, t)))
            for t in self.transforms
            if t.name != "optimal"
        ]
        if self.text_procedure:
            return tuple(curves)
        near = [kl for kl in kls if kl > 0 and self._carries(kl)]
        raw = [self._raw_ideal(kl).value for kl in near]
        return (Curve("raw", (0.0, *near), (0.5, *raw)), *curves)

    def ceilings(self, target: str, kl: float) -> tuple[DecompositionRow, ...]:
        if self.theory is None:
            return ()
        limit = float(frontier(self.theory, [kl])[0])
        rows = [DecompositionRow("limit at this KL", limit, note="optimal Φ, perfect calibration")]
        if self.text_procedure or (target == "raw" and not self._carries(kl)):
            return tuple(rows)
        if target == "raw":
            row = self._raw_ideal(kl)
            note = "exact tilt of the stored rollouts by the raw reward, cross-fitted"
            return (*rows, DecompositionRow("ideal of raw reward", row.value, row.se, note))
        if kl > 0.9 * largest_kl(self._k - 1):
            return tuple(rows)
        transform = Identity() if target == "calibrated" else self.transform
        finite = finite_win_rate(transform, self.rank_procedure, self._k - 1, kl)
        name = f"this transform ({transform.name}), K = {self._k} rollouts"
        note = "exact: posterior-mean training reward of every rank, at this KL"
        return (*rows, DecompositionRow(name, finite, note=note))

    def calibration_check(self) -> CalibrationCheck:
        return CalibrationCheck.from_rewards(
            self.calibration.reference_rewards,
            self.calibration.leave_one_out(),
            [prompt.text for prompt in self.prompts["train"]],
            note="reference rollouts, each calibrated by the others of its prompt.",
        )

    def answers(self, names: Sequence[str], steps: dict[str, int]) -> tuple[AnswerPair, ...]:
        prompts = self.prompts["held-out"][:SHOWN]
        stores = {"reference": (decoded.REFERENCE, self.fresh)}
        for name in names:
            whose = f"{name}-{steps[name]:06d}"
            stores[POLICIES[name]] = whose, RolloutStore.existing(self.folder / "judged" / whose)
        m = self.experiment.evaluate.samples
        theirs = self.fresh.rewards(self.reward.name, prompts, m)
        calibration = EmpiricalCalibration(tuple(p.id for p in prompts), theirs)
        columns = []
        for who, (whose, store) in stores.items():
            shown = decoded.shown(self, whose, store, prompts)
            quantiles = calibration([p.id for p in prompts], np.array([[r] for _, r in shown]))
            columns.append(
                [Answer(who, *one, float(u)) for one, u in zip(shown, quantiles[:, 0], strict=True)]
            )
        return tuple(
            AnswerPair(prompt.text, tuple(answers))
            for prompt, *answers in zip(prompts, *columns, strict=True)
        )

    def facts(self) -> dict[str, str]:
        sampling = self.policy.sampling
        return {
            "model": self.policy.name,
            "responses": f"up to {sampling.max_new_tokens} tokens, temperature "
            f"{sampling.temperature}, full vocabulary",
            "prompts": f"{len(self.prompts['train'])} trained on, "
            f"{len(self.prompts['held-out'])} held out",
            "reference rollouts": f"K = {self._k} per prompt calibrate and train; "
            f"{self.experiment.evaluate.samples} fresh ones per prompt judge",
            "training reward": self.reward.name,
            "other judges": ", ".join(list(self.judges)[1:]) or "none",
        }


def _counts(store: RolloutStore, prompts: Sequence[Prompt]) -> dict[str, int]:
    responses = int(store.counts(prompts).sum())
    return {"responses": responses, "tokens": store.token_count(prompts)}
