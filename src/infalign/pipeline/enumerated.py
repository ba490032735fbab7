"""A study in which every response can be listed: laws are tables, and nothing is sampled.

The policy answers in one token out of C. Rewards of all C responses to all prompts are computed
once; from then on calibration, KL, win rates and the gradient are exact sums.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from infalign.evaluation import compare, estimate
from infalign.pipeline import build
from infalign.pipeline.listed_answers import listed_answers
from infalign.pipeline.measurement import SPLITS, Measurement, Split, save_arrays
from infalign.pipeline.study import POLICIES, Study, recorded
from infalign.quantile.procedures import BestOfN
from infalign.quantile.tilting import atoms_kl, beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Exponential, Identity, Log, Transform
from infalign.quantile.win_rate import atomic_win_rate, decoded_masses, frontier
from infalign.report import (
    AnswerPair,
    CalibrationCheck,
    Curve,
    DecompositionRow,
    IdealRow,
)
from infalign.rollouts.shards import content_key
from infalign.training.rewards import EnumeratedReward, quantile_intervals
from infalign.training.solver import Problem

__all__ = ["EnumeratedStudy"]

SHOWN = 6
"""Prompts whose answers are shown."""


class EnumeratedStudy(Study):
    """Exact from end to end."""

    curve_note = (
        "Limit: theory for continuous rewards. Other curves: exact tilts of the listed responses "
        "of the training prompts."
    )

    @functools.cached_property
    def renderer(self) -> Any:
        return build.policy_of(self.experiment.policy, self.threads)

    @functools.cached_property
    def policy(self) -> Any:
        """The policy; which responses it chooses from is found once and kept for all processes."""
        policy = self.renderer
        texts = [text for split in SPLITS for text in self._texts(split)]
        path = self.folder / "rollouts" / "choices.npz"
        key = content_key(policy.fingerprint, texts)
        if path.exists():
            with np.load(path) as stored:
                if str(stored["of"]) == key:
                    policy.adopt(texts, stored["tokens"], stored["masses"])
                    return policy
        tokens, masses = policy.choices(texts)
        save_arrays(path, {"of": np.array(key), "tokens": tokens, "masses": masses})
        return policy

    def roll_out(self) -> None:
        with self.timed("rollouts", "listed, not sampled") as extra:
            extra["responses"] = sum(self.masses(split).size for split in SPLITS)

    def score(self) -> None:
        for name in self.judges:
            self._rewards_of(name)

    @functools.cached_property
    def _masses(self) -> dict[Split, np.ndarray]:
        return {split: self.policy.reference_law(self._texts(split)) for split in SPLITS}

    def masses(self, split: Split) -> Float[np.ndarray, "P C"]:
        """The reference's law."""
        return self._masses[split]

    def rewards(self, split: Split, judge: str | None = None) -> Float[np.ndarray, "P C"]:
        """Rewards of all responses, by the training reward or another judge."""
        return self._rewards_of(judge or self.reward.name)[split]

    @functools.cached_property
    def _known(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _rewards_of(self, judge: str) -> dict[str, np.ndarray]:
        if judge not in self._known:
            self._known[judge] = self._stored_or_scored(judge)
        return self._known[judge]

    @functools.cached_property
    def _responses_key(self) -> str:
        """What stored rewards are rewards of: these responses to these prompts."""
        ids = [prompt.id for split in SPLITS for prompt in self.prompts[split]]
        return content_key(self.reference_fingerprint(), ids)

    def _stored_or_scored(self, judge: str) -> dict[str, np.ndarray]:
        path = self.folder / "rewards" / f"{judge}.npz"
        if path.exists():
            with np.load(path) as stored:
                if str(stored["of"]) == self._responses_key:
                    return {split: stored[split] for split in SPLITS}
        with self.timed("rewards"), self.show.progress(f"rewards: {judge}") as progress:
            found = self._score_all(judge, progress)
        save_arrays(path, {"of": np.array(self._responses_key), **found})
        return found

    def _score_all(self, judge: str, progress: Any) -> dict[str, np.ndarray]:
        reward, found, done = self.judges[judge], {}, 0
        total = sum(len(self.prompts[split]) for split in SPLITS)
        for split in SPLITS:
            parts = []
            for text in self._texts(split):
                parts.append(reward([text], self.policy.responses([text])))
                done += 1
                progress(done, total)
            found[split] = np.concatenate(parts)
            if not np.isfinite(found[split]).all():
                row = int(np.argwhere(~np.isfinite(found[split]))[0, 0])
                prompt = self.prompts[split][row]
                raise ValueError(
                    f"reward {judge!r} is not a finite number for a response to prompt "
                    f"{prompt.id} ({prompt.text[:40]!r}); repair the reward."
                )
        return found

    def reference_rewards(self) -> np.ndarray:
        return self.rewards("train")

    def training_reward(self, target: str) -> EnumeratedReward:
        """Φ of every response: the transform's mean over the quantiles the response stands for."""
        masses, rewards = self.masses("train"), self.rewards("train")
        texts = self.policy.responses(self._texts("train"))
        common = (self.ids, texts, masses, rewards)
        if target == "raw":
            return EnumeratedReward(tuple(self.ids), *common[1:], rewards)
        transform = Identity() if target == "calibrated" else self.transform
        return EnumeratedReward.of_transform(*common, transform)

    def problem(self, target: str) -> Problem:
        reward = self.training_reward(target)
        return Problem(
            self.prompts["train"], reward, self.beta_of(reward), procedure=self.rank_procedure
        )

    def measure(self, name: str, step: int, *, last: bool) -> Measurement:
        kl, wins = {}, {}
        laws: dict[Split, np.ndarray] = {
            split: self.policy.law(self._texts(split)).masses for split in SPLITS
        }
        save_arrays(self._law_path(name, step), dict(laws))
        for split, law in laws.items():
            kl[split] = atoms_kl(self.masses(split), law)
            for judge in self.judges:
                for label, procedure in self.procedures.items():
                    wins[split, judge, label] = self._win_rate(law, split, judge, procedure)
        return Measurement(step, kl, kl, wins)

    equal_kl_note = (
        "Each policy's last checkpoint is brought to the common KL along its own exponential path "
        "to the reference, π_ref^(1−λ)·π^λ/Z with one λ for all prompts: for a converged policy "
        "that is the same reward trained at a larger β. Laws, KL and win rates are exact."
    )

    def win_rate_at(
        self, name: str, path: Sequence[Measurement], key: tuple[Split, str, str], kl: float
    ) -> np.ndarray | None:
        split, judge, label = key
        law = self._last_law(name, path[-1].step)[split]
        reference = self.masses(split)
        with np.errstate(divide="ignore"):
            log_ratio = np.where(law > 0, np.log(law / reference), -np.inf)
        if kl > float(atoms_kl(reference, law).mean()) * (1 + 1e-9):
            return None
        # The tilt of the reference by the log-ratio at β = 1/λ is the path's member.
        beta = max(1.0, float(beta_for_atoms_kl(reference, log_ratio, kl)))
        member = tilt_atoms(reference, log_ratio, beta)
        return self._win_rate(member, split, judge, self.procedures[label])

    def reach(self, path: Sequence[Measurement], split: Split) -> float:
        return float(path[-1].kl[split].mean())

    def _last_law(self, name: str, step: int) -> dict[str, np.ndarray]:
        with np.load(self._law_path(name, step)) as stored:
            return {split: stored[split] for split in SPLITS}

    def _law_path(self, name: str, step: int) -> Path:
        return self.folder / "evaluate" / f"{name}-{step:06d}-law.npz"

    def _win_rate(self, law: np.ndarray, split: Split, judge: str, procedure: Any) -> np.ndarray:
        masses, rewards = self.masses(split), self.rewards(split)
        if judge == self.reward.name:
            return atomic_win_rate(law, masses, rewards, procedure)
        judged = self.rewards(split, judge)
        ours = decoded_masses(law, rewards, procedure)
        return compare(judged, ours, judged, decoded_masses(masses, rewards, procedure))

    @functools.cached_property
    def transforms(self) -> dict[str, Transform]:
        """The transforms that are compared, by name; raw reward is not among them."""
        members = (Identity(), Log(), Exponential(10.0), self.transform)
        return {member.name: member for member in members}

    def _tilted(
        self, transform: str, kl: float, split: Split = "train"
    ) -> tuple[float, np.ndarray]:
        """β (found on the training prompts) and the exact tilt of the reference's law."""
        sides: set[Split] = {"train", split}
        values = {side: self._training_rewards(transform, kl, side) for side in sides}
        beta = float(beta_for_atoms_kl(self.masses("train"), values["train"], kl))
        return beta, tilt_atoms(self.masses(split), values[split], beta)

    def _training_rewards(self, transform: str, kl: float, split: Split) -> np.ndarray:
        rewards = self.rewards(split)
        if transform == "raw":
            return rewards
        low, high = quantile_intervals(self.masses(split), rewards)
        member = self.transforms[transform]
        if transform == "optimal":
            from infalign.quantile.optimal import optimal_transform

            member = optimal_transform(self.rank_procedure, kl=kl)
        return member.interval_mean(low, high)

    def ideal(self, kl: float) -> tuple[IdealRow, ...]:
        rows = []
        for name in ("raw", *self.transforms):
            beta, law = self._tilted(name, kl)
            standard, decoded = (
                estimate(atomic_win_rate(law, self.masses("train"), self.rewards("train"), p))
                for p in (BestOfN(1), self.rank_procedure)
            )
            rows.append(IdealRow(name, kl, recorded(standard), recorded(decoded), beta))
        return tuple(rows)

    def predictions(self, kls: Sequence[float]) -> tuple[Curve, ...]:
        curves = []
        for name in ("raw", *self.transforms):
            rates = [self._predicted(name, kl) if kl > 0 else 0.5 for kl in kls]
            curves.append(Curve(name, tuple(kls), tuple(rates)))
        return tuple(curves)

    def _predicted(self, transform: str, kl: float, split: Split = "train") -> float:
        _, law = self._tilted(transform, kl, split)
        wins = atomic_win_rate(law, self.masses(split), self.rewards(split), self.rank_procedure)
        return float(wins.mean())

    def ceilings(self, target: str, kl: float) -> tuple[DecompositionRow, ...]:
        name = {"raw": "raw", "calibrated": "identity"}.get(target, self.transform.name)
        limit = float(frontier(self.rank_procedure, [kl])[0])
        note = "exact tilt of the listed responses: calibrated without error, ties included"
        ideal = DecompositionRow(
            f"ideal: exact tilt by {name}", self._predicted(name, kl), note=note
        )
        return DecompositionRow(
            "limit at this KL", limit, note="continuous rewards, optimal Φ"
        ), ideal

    def calibration_check(self) -> CalibrationCheck:
        masses, rewards = self.masses("train"), self.rewards("train")
        low, high = quantile_intervals(masses, rewards)
        rng = self.rng("calibration")
        draws = np.array([rng.choice(len(row), 256, p=row / row.sum()) for row in masses])
        place = rng.random(draws.shape)
        low, high = (np.take_along_axis(side, draws, 1) for side in (low, high))
        return CalibrationCheck.from_rewards(
            np.take_along_axis(rewards, draws, 1),
            low + place * (high - low),
            [prompt.text for prompt in self.prompts["train"]],
            note="256 draws from each prompt's exact law; ties are spread over their interval.",
        )

    def answers(self, names: Sequence[str], steps: dict[str, int]) -> tuple[AnswerPair, ...]:
        texts, rewards = self._texts("held-out")[:SHOWN], self.rewards("held-out")[:SHOWN]
        laws = {POLICIES[n]: self._last_law(n, steps[n])["held-out"][:SHOWN] for n in names}
        laws = {"reference": self.masses("held-out")[:SHOWN]} | laws
        procedure = self.rank_procedure
        return listed_answers(texts, self.policy.responses(texts), laws, rewards, procedure)

    def facts(self) -> dict[str, str]:
        return {
            "model": self.policy.name,
            "responses": f"one token of the reference's {self.masses('train').shape[1]} "
            f"most likely, temperature {self.experiment.policy.temperature}",
            "prompts": f"{len(self.prompts['train'])} trained on, "
            f"{len(self.prompts['held-out'])} held out",
            "training reward": self.reward.name,
            "everything": "exact: laws, KL, win rates and gradients are sums, not samples",
        }

    def _texts(self, split: Split) -> list[str]:
        return [prompt.text for prompt in self.prompts[split]]
