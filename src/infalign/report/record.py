"""What a report says, as plain records: fill them, then `write_report(report, folder)`.

Nothing here computes a result or draws a figure. A :class:`Report` has one or more acts; an act
holds what one experiment showed, and every part of it may be left out (`None` or empty).
The records of what was measured are in `measured`, the calibration's in `calibration_check`; all
of them can be imported from here.
"""

import dataclasses
from collections.abc import Mapping
from typing import final

from infalign.report.calibration_check import CalibrationCheck, PromptSpread
from infalign.report.measured import (
    Checkpoint,
    Comparison,
    Curve,
    Decomposition,
    DecompositionRow,
    Difference,
    Estimate,
    Frontier,
    IdealRow,
    Measured,
    PolicyValue,
    Split,
)
from infalign.report.plain import PlainRecord, require_same_length

__all__ = [
    "Act",
    "Answer",
    "AnswerPair",
    "CalibrationCheck",
    "Checkpoint",
    "Comparison",
    "Curve",
    "Decomposition",
    "DecompositionRow",
    "Difference",
    "Estimate",
    "Frontier",
    "IdealRow",
    "Manifest",
    "Measured",
    "PolicyValue",
    "PromptSpread",
    "Report",
    "Split",
    "Stage",
    "TrainingCurve",
    "WinRateByN",
]


@final
@dataclasses.dataclass(frozen=True)
class TrainingCurve(PlainRecord):
    """What was logged while one policy trained; any series may be left empty."""

    policy: str
    """The policy's name."""
    steps: tuple[float, ...]
    """Optimiser steps."""
    reward: tuple[float, ...] = ()
    """Mean raw reward."""
    quantile: tuple[float, ...] = ()
    """Mean calibrated reward, ½ at the start."""
    kl: tuple[float, ...] = ()
    """Nats per response."""

    def check(self) -> None:
        """Series run in parallel with the steps."""
        require_same_length(self, "steps", optional=("reward", "quantile", "kl"))


@final
@dataclasses.dataclass(frozen=True)
class WinRateByN(PlainRecord):
    """One policy's best-of-N win rate for many N, from one set of samples."""

    policy: str
    """The policy's name."""
    split: Split
    """Which prompts."""
    ns: tuple[int, ...]
    """Numbers of candidates, increasing."""
    win_rates: tuple[Estimate, ...]
    """One per N."""
    judge: str = ""
    """The reward that decides; empty: the act's training reward."""
    kl: float | None = None
    """The policy's measured KL, nats."""

    def check(self) -> None:
        """One win rate per N."""
        require_same_length(self, "ns", "win_rates")


@final
@dataclasses.dataclass(frozen=True)
class Answer(PlainRecord):
    """What one policy finally answers to a prompt, after decoding."""

    policy: str
    """The policy's name."""
    text: str
    """The chosen response, shown as it is."""
    reward: float | None = None
    """Training reward, in its own unit."""
    quantile: float | None = None
    """Calibrated reward, in [0, 1]."""
    gold: float | None = None
    """The gold judge's reward."""


@final
@dataclasses.dataclass(frozen=True)
class AnswerPair(PlainRecord):
    """The decoded answers of several policies to one prompt, side by side."""

    prompt: str
    """The prompt's text."""
    answers: tuple[Answer, ...]
    """Reference first, if it is among them."""
    split: Split = "held-out"
    """Where the prompt comes from."""


@final
@dataclasses.dataclass(frozen=True)
class Stage(PlainRecord):
    """What one stage cost."""

    name: str
    """The stage's word: rollouts, rewards, train …"""
    seconds: float
    """Wall-clock seconds."""
    responses: int | None = None
    """Responses sampled or scored."""
    tokens: int | None = None
    """Tokens of those responses."""
    note: str = ""
    """For example `resumed` or `two processes side by side`."""


@final
@dataclasses.dataclass(frozen=True)
class Manifest(PlainRecord):
    """What one needs to run it again."""

    experiment: str = ""
    """The experiment file, YAML."""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Package versions."""
    device: str = ""
    """For example `cpu, 2 threads, bfloat16`."""
    seed: int | None = None
    """The run's seed."""
    other: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Anything else worth keeping: model revision, hashes, host."""


@final
@dataclasses.dataclass(frozen=True)
class Act(PlainRecord):
    """What one experiment showed. Only `title` is required; parts left out are not shown."""

    title: str
    """For example `Act one: one-token responses, everything exact`."""
    summary: str = ""
    """What was done, one paragraph."""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Short facts in order: model, prompts, K, training reward …"""
    procedure: str = "best-of-4"
    """The procedure trained for."""
    reward: str = "training reward"
    """Name of the training reward; comparisons judged by it make the headline."""
    treatment: str = ""
    """The policy whose advantage is the question; with `baseline` it makes the headline."""
    baseline: str = ""
    """The policy it is compared with."""
    target_kl: float | None = None
    """KL the headline is taken at (the nearest common KL); None: the largest common KL."""
    frontiers: tuple[Frontier, ...] = ()
    """Panels of the main figure: usually training prompts, then held-out prompts."""
    comparisons: tuple[Comparison, ...] = ()
    """Policies at equal KL."""
    equal_kl_note: str = ""
    """How they were brought there; empty: interpolated along their checkpoints."""
    ideal: tuple[IdealRow, ...] = ()
    """The ideal at once."""
    decompositions: tuple[Decomposition, ...] = ()
    """The distance between ideal and trained, one per policy."""
    calibration: CalibrationCheck | None = None
    """Rewards before and after calibration."""
    training: tuple[TrainingCurve, ...] = ()
    """Curves during training."""
    win_rate_by_n: tuple[WinRateByN, ...] = ()
    """Win rate for N = 1..32."""
    answers: tuple[AnswerPair, ...] = ()
    """Decoded answers side by side."""
    cost: tuple[Stage, ...] = ()
    """Seconds, responses and tokens by stage."""
    manifest: Manifest | None = None
    """How to run it again."""
    plan: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    """Where the report's planner starts: values of `infalign.planner.page.START` by name. The
    first act that has them decides."""


@final
@dataclasses.dataclass(frozen=True)
class Report(PlainRecord):
    """A whole report: one or more acts under one title.

    Example:
        >>> Report("Best-of-4 alignment", acts=[Act("Demo")]).acts[0].procedure
        'best-of-4'
    """

    title: str
    """The page's heading."""
    acts: tuple[Act, ...]
    """In the order they are told."""
    summary: str = ""
    """One paragraph before the first act."""
    created: str = ""
    """Date shown in the footer, ISO 8601; nothing else in the report depends on the clock."""
    cost: tuple[Stage, ...] = ()
    """Stages that belong to no act: installation, assets."""
    manifest: Manifest | None = None
    """Common to all acts."""
