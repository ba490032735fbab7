"""What the page's controls are called: procedures and transforms as values of its sliders."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, final

from infalign.cli.changes import experiment_from

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.transforms import Transform

__all__ = ["Start", "of_experiment", "of_procedure", "of_transform"]


@final
@dataclasses.dataclass
class Start:
    """Where controls should stand, and what no control can say."""

    values: dict[str, str | float] = dataclasses.field(default_factory=dict)
    """By the names in `infalign.planner.page.START`."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """For the person who asked."""

    def add(self, other: "Start") -> None:
        """Take over what the other one says."""
        self.values |= other.values
        self.notes += other.notes


def of_procedure(procedure: "Procedure") -> Start:
    """The procedure with all its settings, or the nearest one the page has."""
    from infalign.quantile.procedures import (
        BestOfN,
        Identity,
        MetropolisHastings,
        RewindAndRepeat,
        SoftBestOfN,
        WorstOfN,
        median_of,
    )

    n = procedure.candidates
    match procedure:
        case Identity():
            return Start({"procedure": "identity"})
        case BestOfN():
            return Start({"procedure": "best_of_n", "n": n})
        case WorstOfN():
            return Start({"procedure": "worst_of_n", "n": n})
        case SoftBestOfN():
            temperature = procedure.temperature
            return Start({"procedure": "soft_best_of_n", "n": n, "temperature": temperature})
        case RewindAndRepeat():
            bar, most = procedure.threshold, procedure.at_most
            return Start({"procedure": "rewind_and_repeat", "threshold": bar, "at_most": most})
        case MetropolisHastings():
            return _of_chain(procedure)
    if procedure == median_of(n):
        return Start({"procedure": "median_of_n", "n": n})
    return _of_count(procedure)


def _of_chain(procedure: "Procedure") -> Start:
    """The page's chain imitates best-of-n: Φ = log, β = 1/(n − 1)."""
    from infalign.quantile.procedures import MetropolisHastings
    from infalign.quantile.transforms import Log

    assert isinstance(procedure, MetropolisHastings)
    n = max(1 + 1 / procedure.beta, 2)
    start = Start({"procedure": "metropolis_hastings", "steps": procedure.steps, "n": round(n)})
    if not isinstance(procedure.transform, Log) or abs(n - round(n)) > 1e-9:
        start.notes.append(
            f"The page's chain imitates best-of-n for a whole n; it starts from n = {round(n)}, "
            f"not from β = {procedure.beta:.4g}."
        )
    return start


def _of_count(procedure: "Procedure") -> Start:
    """Best-of-Poisson, or best-of-n in place of what the page lacks."""
    from infalign.quantile.procedures import RandomCount, Uniform, best_of_poisson

    mean = procedure.mean_candidates(Uniform())
    n = round(mean + 1e-6)  # a law cut off far out has a little less than its mean
    if isinstance(procedure, RandomCount) and procedure.label.startswith("best-of-poisson"):
        start = Start({"procedure": "best_of_poisson", "n": n})
        if procedure != best_of_poisson(n):
            start.notes.append(f"The page's Poisson has a whole mean; it starts from {n}.")
        return start
    return Start(
        {"procedure": "best_of_n", "n": n},
        [f"The page has no {procedure.name}; it starts from best-of-{n}, as many candidates."],
    )


def of_transform(transform: "Transform | None") -> Start:
    """The transform; None is the optimal one."""
    from infalign.quantile.transforms import Exponential, Identity, Log

    match transform:
        case None:
            return Start({"transform": "optimal"})
        case Identity():
            return Start({"transform": "identity"})
        case Log():
            return Start({"transform": "log"})
        case Exponential():
            return Start({"transform": "exponential", "t": transform.t})
    return Start(
        {"transform": "optimal"},
        [f"The page has no transform {transform.name}; it starts from the optimal one."],
    )


def of_experiment(path: Path) -> Start:
    """The transform and the rollouts that an experiment says beside procedure and KL."""
    experiment = experiment_from(path)
    section = experiment.transform
    start = Start({"transform": section.kind, "k": experiment.rollouts.k})
    if section.kind == "exponential":
        start.values["t"] = section.t
    return start
