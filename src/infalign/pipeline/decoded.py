"""Win rates after decoding by a procedure on text: what ranks of stored samples do not tell.

Where it draws whole responses, the samples that measure a policy anyway are decoded, subset by
subset. Where it goes on from beginnings, both sides decode for themselves a few times per prompt;
those answers are kept in `judged/<policy>-<step>-decoded.json`, the reference's beside them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from infalign.config import OnlineDecodedSolver
from infalign.decoding import Budget, TextProcedure, decode_stored
from infalign.evaluation import (
    Answers,
    answer_repeatedly,
    answers_from_samples,
    decoded_win_rate,
)
from infalign.pipeline.measurement import SPLITS, Split
from infalign.prompts import Prompt
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.tilting import atoms_kl, tilt_atoms
from infalign.rollouts import RolloutStore
from infalign.rollouts.shards import write_atomically
from infalign.training.rewards import TrainingReward

if TYPE_CHECKING:
    from infalign.pipeline.sampled import SampledStudy
    from infalign.pipeline.study import Study

__all__ = [
    "REFERENCE",
    "answers_by",
    "beta_of",
    "calibration_for",
    "keep_reference_answers",
    "shown",
    "win_rates",
]

REFERENCE = "reference"
"""Whose answers are to be beaten."""


def win_rates(
    study: "SampledStudy",
    whose: str,
    store: RolloutStore,
    split: Split,
    judges: Sequence[str],
) -> dict[tuple[Split, str, str], Float[np.ndarray, "P"]]:
    """(split, judge, procedure) → win rate of each prompt; none for a procedure on ranks."""
    procedure = study.text_procedure
    if procedure is None:
        return {}
    ours = answers_by(study, procedure, whose, store, split)
    theirs = answers_by(study, procedure, REFERENCE, study.fresh, split)
    wins = {}
    for name in judges:
        sides = (ours, theirs)
        if name != study.reward.name:
            both = ((ours, store), (theirs, study.fresh))
            sides = [_judged(study, procedure, *side, name) for side in both]
        wins[split, name, procedure.name] = decoded_win_rate(*sides)
    return wins


def shown(
    study: "SampledStudy", whose: str, store: RolloutStore, prompts: Sequence[Prompt]
) -> list[tuple[str, float]]:
    """One decoded answer to each of the first held-out prompts, and its reward."""
    procedure = study.text_procedure
    if procedure is not None:
        answers = answers_by(study, procedure, whose, store, "held-out")
        rewards = answers.rewards[:, 0].tolist()
        return [(answers.texts[p][0], rewards[p]) for p in range(len(prompts))]
    rewards, rng = store.rewards(study.reward.name, prompts), study.rng("answers")
    stored = store.responses(prompts)
    found = decode_stored(prompts, stored, rewards, study.rank_procedure, rng)
    return [(one.text, one.rewards[one.index]) for one in found]


def answers_by(
    study: "SampledStudy",
    procedure: TextProcedure,
    whose: str,
    store: RolloutStore,
    split: Split,
) -> Answers:
    """Decoded answers of a policy, as it is now, to the prompts of one side."""
    prompts = study.measured(split)
    if procedure.needs_beginnings:
        return _kept(study, procedure, whose, split)
    m = study.experiment.evaluate.samples
    if procedure.needs_calibration and whose == REFERENCE:
        m //= 2  # the others calibrate, and what calibrates must not be judged
    return answers_from_samples(
        prompts,
        [row[:m] for row in store.responses(prompts)],
        store.rewards(study.reward.name, prompts, m),
        procedure,
        calibration=calibration_for(study, prompts),
        rng=study.rng("decoded", whose, split),
    )


def calibration_for(study: "Study", prompts: Sequence[Prompt]) -> Calibration | None:
    """Quantiles among the second half of the reference's fresh samples; None if not needed."""
    from infalign.pipeline.sampled import SampledStudy

    procedure = study.text_procedure
    if procedure is None or not procedure.needs_calibration:
        return None
    assert isinstance(study, SampledStudy), "the experiment file refuses others"
    m = study.experiment.evaluate.samples
    rewards = study.fresh.rewards(study.reward.name, prompts, m)
    return EmpiricalCalibration(tuple(prompt.id for prompt in prompts), rewards[:, m // 2 :])


def keep_reference_answers(study: "SampledStudy") -> None:
    """Decode the reference once, before policies that are compared with it run side by side."""
    procedure = study.text_procedure
    if procedure is not None and procedure.needs_beginnings:
        with study.timed("decode the reference"):
            for split in SPLITS:
                _kept(study, procedure, REFERENCE, split)


def _kept(study: "SampledStudy", procedure: TextProcedure, whose: str, split: Split) -> Answers:
    """Answers the policy finds for itself, from disk where it found them before."""
    prompts = study.measured(split)
    path = study.folder / "judged" / f"{whose}-{split}-decoded.json"
    if path.exists():
        return _read(path, prompts)
    is_reference = whose == REFERENCE
    with study.policy.reference() if is_reference else contextlib.nullcontext():
        answers = answer_repeatedly(
            study.policy,
            prompts,
            study.reward,
            procedure,
            study.experiment.evaluate.repeats,
            calibration=calibration_for(study, prompts),
            rng=study.rng("decoded", whose, split),
        )
    data = {
        "texts": answers.texts,
        "rewards": answers.rewards.tolist(),
        "responses": answers.budget.responses,
        "tokens": answers.budget.tokens,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(data).encode(), study.folder)
    return answers


def _read(path: Path, prompts: Sequence[Prompt]) -> Answers:
    data = json.loads(path.read_text(encoding="utf-8"))
    texts = tuple(map(tuple, data["texts"]))
    budget = Budget(data["responses"], data["tokens"])
    return Answers(tuple(prompts), texts, np.array(data["rewards"]), budget)


def _judged(
    study: "SampledStudy",
    procedure: TextProcedure,
    answers: Answers,
    store: RolloutStore,
    judge: str,
) -> Answers:
    """The answers under another judge; what it said of stored samples is not asked again."""
    if procedure.needs_beginnings:
        return answers.judged_by(study.judges[judge])
    prompts, m = answers.prompts, study.experiment.evaluate.samples
    known = store.rewards(judge, prompts, m)
    by_text = [
        dict(zip((response.text for response in row), values, strict=False))
        for row, values in zip(store.responses(prompts), known, strict=True)
    ]

    rows = zip(answers.texts, by_text, strict=True)
    judged = np.array([[said[text] for text in row] for row, said in rows])
    return dataclasses.replace(answers, rewards=judged)


def beta_of(study: "SampledStudy", target: str, reward: TrainingReward) -> float:
    """β of a policy's training.

    Training on what is decoded gives it in win rate per nat, which fits the bare quantile too: that
    is the win rate of one response. The raw reward has another unit; it is trained towards the KL
    that the exact tilt by the bare quantile has.
    """
    training = study.experiment.training
    if not isinstance(training, OnlineDecodedSolver) or target != "raw":
        return study.beta_of(reward)
    assert training.beta is not None, "the section asks for it"
    masses, quantiles = study.training_reward("calibrated").atoms(study.ids)
    kls = atoms_kl(masses, tilt_atoms(masses, quantiles, training.beta))
    return reward.beta_for_kl(float(kls.mean()), study.ids)
