"""What was measured, as plain records: win rates with their errors, beside their prediction.

Win rates are probabilities in [0, 1], KL is in nats per response. Numpy arrays and lists are
welcome wherever a tuple is declared and become tuples of Python numbers.
"""

import dataclasses
import math
from typing import Literal, final

from scipy import stats

from infalign.report.plain import PlainRecord, require_same_length

__all__ = [
    "Checkpoint",
    "Comparison",
    "Curve",
    "Decomposition",
    "DecompositionRow",
    "Difference",
    "Estimate",
    "Frontier",
    "IdealRow",
    "Measured",
    "PolicyValue",
    "Split",
]

Split = Literal["train", "held-out"]
"""`train`: fresh samples of the training prompts; `held-out`: prompts never trained on."""


@final
@dataclasses.dataclass(frozen=True)
class Estimate(PlainRecord):
    """A measured number with its standard error over prompts.

    Example:
        >>> low, high = Estimate(0.107, 0.02, prompts=24).interval()
        >>> round(low, 3), round(high, 3)
        (0.066, 0.148)
    """

    value: float
    """The point estimate."""
    se: float | None = None
    """Standard error, clustered by prompt; `None` when exact or unknown."""
    prompts: int | None = None
    """How many prompts it is a mean over; makes the interval Student's t, else normal."""

    def check(self) -> None:
        """Errors are not negative, clusters are at least one."""
        if self.se is not None and self.se < 0:
            raise ValueError(f"Estimate.se is {self.se}; a standard error is at least 0.")
        if self.prompts is not None and self.prompts < 1:
            raise ValueError(f"Estimate.prompts is {self.prompts}; it must be at least 1.")

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Two-sided confidence interval `value ± t·se`, or None without a standard error."""
        if self.se is None or self.prompts == 1:
            return None
        degrees = math.inf if self.prompts is None else self.prompts - 1
        half = float(stats.t.ppf((1 + level) / 2, degrees)) * self.se
        return self.value - half, self.value + half


@final
@dataclasses.dataclass(frozen=True)
class Curve(PlainRecord):
    """Win rate after decoding against KL, as predicted: one transform, or the limit."""

    transform: str
    """Name of the transform (`raw`, `identity`, `log`, `exp(10u)`, …); gives it its colour."""
    kls: tuple[float, ...]
    """Nats, increasing."""
    win_rates: tuple[float, ...]
    """Probabilities, one per KL."""

    def check(self) -> None:
        """One win rate per KL, KL increasing."""
        require_same_length(self, "kls", "win_rates")
        if any(a > b for a, b in zip(self.kls, self.kls[1:], strict=False)):
            raise ValueError(f"Curve {self.transform!r}: kls must increase; sort the points by KL.")


@final
@dataclasses.dataclass(frozen=True)
class Checkpoint(PlainRecord):
    """One policy as it stood after `step` steps, measured."""

    kl: Estimate
    """KL(π‖π_ref), nats."""
    win_rate: Estimate
    """Win rate after decoding against the decoded reference."""
    step: int | None = None
    """Optimiser steps taken."""
    limit: float | None = None
    """W* at this KL; where None it is read off the frontier's limit curve."""


@final
@dataclasses.dataclass(frozen=True)
class Measured(PlainRecord):
    """A trained policy along its checkpoints, in training order."""

    policy: str
    """The policy's name, the same everywhere in the act."""
    transform: str
    """The transform it was trained on: the name of the curve that predicts it."""
    checkpoints: tuple[Checkpoint, ...]
    """The last one is the final policy."""


@final
@dataclasses.dataclass(frozen=True)
class Frontier(PlainRecord):
    """The main figure's panel for one set of prompts: limit, predictions, measurements."""

    split: Split
    """Which prompts the measurements are on."""
    limit: Curve | None = None
    """W*(KL): the largest win rate after decoding any policy can have."""
    predictions: tuple[Curve, ...] = ()
    """What each transform should reach when training converges."""
    measured: tuple[Measured, ...] = ()
    """What trained policies did reach."""
    judge: str = ""
    """The reward that decides who wins; empty: the act's training reward."""
    note: str = ""
    """How the curves were computed, said under the figure."""


@final
@dataclasses.dataclass(frozen=True)
class PolicyValue(PlainRecord):
    """One policy's win rate in a comparison."""

    policy: str
    """The policy's name."""
    win_rate: Estimate
    """Against the reference."""


@final
@dataclasses.dataclass(frozen=True)
class Difference(PlainRecord):
    """Win rate of `policy` minus that of `baseline`, paired by prompt."""

    policy: str
    """Minuend."""
    baseline: str
    """Subtrahend."""
    difference: Estimate
    """In win-rate units, −1 to 1; its standard error is of the paired difference."""


@final
@dataclasses.dataclass(frozen=True)
class Comparison(PlainRecord):
    """Policies at one common KL, interpolated along their checkpoints."""

    kl: float
    """The common KL, nats."""
    split: Split
    """Which prompts."""
    judge: str
    """The reward that decides who wins."""
    procedure: str
    """How both sides were decoded, `best-of-4`, or `standard` for one plain sample."""
    win_rates: tuple[PolicyValue, ...]
    """Every policy that reaches this KL."""
    differences: tuple[Difference, ...] = ()
    """Paired differences; the act's treatment minus its baseline makes the headline."""


@final
@dataclasses.dataclass(frozen=True)
class IdealRow(PlainRecord):
    """The exact tilt of stored rollouts by one transform: what training would reach at best."""

    transform: str
    """Name of the transform."""
    kl: float
    """Common to all rows that are compared, nats."""
    standard: Estimate
    """Win rate without decoding."""
    decoded: Estimate
    """Win rate after decoding."""
    beta: float | None = None
    """The β at which this transform has that KL."""


@final
@dataclasses.dataclass(frozen=True)
class DecompositionRow(PlainRecord):
    """One level on the way down from the ideal to what was measured."""

    label: str
    """`ideal at this KL`, `finite K`, `trained, training prompts`, `trained, held-out prompts` …"""
    value: float
    """Win rate after decoding at this level; the loss shown is against the row above."""
    se: float | None = None
    """Its standard error; None when exact."""
    note: str = ""
    """How it was obtained."""


@final
@dataclasses.dataclass(frozen=True)
class Decomposition(PlainRecord):
    """What the distance between the ideal and one trained policy is made of."""

    policy: str
    """The trained policy."""
    kl: float | None
    """The KL all rows are at; None where rows differ and their notes say so."""
    rows: tuple[DecompositionRow, ...]
    """From the ideal downwards."""
