"""What a run measured, and every prediction of it, from the curve to the run's own optimum.

    curve      Φ's tilt on [0,1] at the mean KL: continuous rewards, all prompts alike
    uneven     the same curve, each prompt at the KL that one β gives it
    atoms      the exact tilt of the listed responses: ties and lumps of probability
    rollouts   the tilt by what K rollouts make of Φ (where K rollouts calibrate)
    trained    what was measured

All of them have the mean KL that was measured, so neighbours differ by one reason each, and the
differences add up: (atoms − curve) is the finite set of responses, (rollouts − atoms) finite K,
(trained − rollouts) optimisation; on held-out prompts the last is generalisation. The last is what
the others leave, so that the sum says nothing for it: it is training by construction.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from benchmarks.arena.measuring import divergences, influence, wins
from benchmarks.arena.runs import Run, kept
from benchmarks.arena.store import Store
from benchmarks.arena.world import Split, World
from benchmarks.methods import Transformed
from benchmarks.prediction.curve import predicted
from infalign.evaluation import Estimate, estimate
from infalign.quantile.finite import finite_win_rate
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Transform

__all__ = ["STAGES", "Explained", "Prediction", "atoms_family", "curve_family", "explain"]

STAGES = ("curve", "uneven", "atoms", "rollouts")
"""Of predictions, from the one that knows least."""
STEP = 0.98
"""Share of the KL at which slopes are read off: below it, since the KL itself may be the most."""

PerPrompt = Float[np.ndarray, "P"]
Family = Callable[[float], tuple[PerPrompt, PerPrompt]]
"""Mean KL → win rate and KL of each prompt."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a family of laws wins at one mean KL."""

    wins: PerPrompt
    """Win rate of each prompt."""
    kls: PerPrompt
    """KL of each prompt. Nats."""
    slope: float
    """dW/dKL along the family, of the means."""

    @classmethod
    def of(cls, family: Family, kl: float) -> "Prediction":
        """A family at a KL."""
        (here, kls), (before, _) = family(kl), family(STEP * kl)
        return cls(here, kls, float((here.mean() - before.mean()) / (kl * (1 - STEP))))

    @property
    def value(self) -> float:
        """Mean win rate."""
        return float(self.wins.mean())


@dataclasses.dataclass(frozen=True)
class Explained:
    """A law, measured, and the predictions of it."""

    wins: PerPrompt
    """Measured win rates."""
    kls: PerPrompt
    """Measured KLs. Nats."""
    predictions: Mapping[str, Prediction]
    """By stage, all at the measured mean KL."""

    @property
    def kl(self) -> float:
        """Mean over prompts. Nats."""
        return float(self.kls.mean())

    @property
    def last(self) -> str:
        """The stage that knows most."""
        return [stage for stage in STAGES if stage in self.predictions][-1]

    def deviation(self, stage: str) -> Estimate:
        """Measured − predicted, with its error over prompts.

        Other prompts would have another KL, too, at which the prediction is another. So a prompt
        counts by its influence (W_x − λ·KL_x) − (P_x − λ·KL′_x), λ = dP/dKL; as both have the same
        mean KL, the mean of that is the difference of the win rates.
        """
        told = self.predictions[stage]
        return estimate(self.wins - influence(told.wins, told.kls - self.kls, told.slope))

    @property
    def parts(self) -> dict[str, float]:
        """Of measured − curve: by uneven KL, atoms, rollouts and training. They add up."""
        values = [self.predictions[stage].value for stage in STAGES if stage in self.predictions]
        values.append(float(self.wins.mean()))
        names = [stage for stage in STAGES[1:] if stage in self.predictions] + ["training"]
        return dict(zip(names, np.diff(values).tolist(), strict=True))


def curve_family(transform: Transform, procedure: RankProcedure, prompts: int) -> Family:
    """Continuous rewards: every prompt has the same KL, and wins the same."""

    def at(kl: float) -> tuple[PerPrompt, PerPrompt]:
        kls = np.full(prompts, kl)
        return predicted(transform, procedure, kls), kls

    return at


def atoms_family(
    world: World, split: Split, procedure: RankProcedure, training_rewards: np.ndarray
) -> Family:
    """π_ref·exp(Φ/β)/Z on the listed responses, one β for all prompts."""
    law = world.law[world.rows(split)]

    def at(kl: float) -> tuple[PerPrompt, PerPrompt]:
        tilted = tilt_atoms(law, training_rewards, beta_for_atoms_kl(law, training_rewards, kl))
        return wins(tilted, world, split, procedure, "training"), divergences(tilted, law)

    return at


def explain(
    world: World, run: Run, split: Split, procedure: RankProcedure, law: np.ndarray | None = None
) -> Explained:
    """A run that was made, decoded by a procedure.

    Args:
        world: Where; the reward that is trained on is also the judge.
        run: Of a :class:`benchmarks.methods.Transformed`.
        split: Whose prompts.
        procedure: Decodes both sides.
        law: What is measured, over all prompts; that of the run where None.
    """
    assert isinstance(run.method, Transformed)
    transform, rows = run.method.transform, world.rows(split)
    law = kept(world, run)[rows] if law is None else law[rows]
    measured = wins(law, world, split, procedure, "training"), divergences(law, world.law[rows])
    kl = float(measured[1].mean())
    known = Store(world.law[rows], world.judges["training"][rows])
    exact = atoms_family(world, split, procedure, known.training_rewards(transform))

    def uneven(kl: float) -> tuple[PerPrompt, PerPrompt]:
        kls = exact(kl)[1]
        return predicted(transform, procedure, kls), kls

    told = {"curve": Prediction.of(curve_family(transform, procedure, len(law)), kl)}
    with contextlib.suppress(ArithmeticError):  # a prompt lies beyond the digits of the curve
        told["uneven"] = Prediction.of(uneven, kl)
    told["atoms"] = Prediction.of(exact, kl)
    if world.k is not None and split == "train":
        seen = world.store(run.seed).training_rewards(transform)
        told["rollouts"] = Prediction.of(atoms_family(world, split, procedure, seen), kl)
        told["planner"] = planned_ahead(world, run.method, procedure, told["rollouts"], kl)
    return Explained(*measured, told)


def planned_ahead(
    world: World, method: Transformed, procedure: RankProcedure, seen: Prediction, kl: float
) -> Prediction:
    """The planner's word on K rollouts, which knows nothing of the world but ties like `answers`'.

    Args:
        world: With its K.
        method: Whose Φ.
        procedure: Decodes.
        seen: The tilt by the rollouts; its slope stands for this prediction's.
        kl: Mean over prompts. Nats.
    """
    assert world.k is not None
    value = finite_win_rate(method.transform, procedure, world.k, kl, ties=shared_ties(world))
    prompts = len(seen.wins)
    return Prediction(np.full(prompts, value), np.full(prompts, kl), seen.slope)


def shared_ties(world: World) -> Ties:
    """The lumps of probability where all responses of all prompts are equally likely; else none.

    Where a prompt's responses share a reward its lumps are larger; that is not known here.
    """
    law = world.law[world.rows("train")]
    uniform = np.full(law.shape[1], 1 / law.shape[1])
    return Ties.of_masses(uniform) if np.allclose(law, uniform) else NO_TIES
