"""What laws trained on a wrong reward win by the right one, and how much of them games it.

The procedure picks by the wrong reward, as it would in use. Laws are exact tilts (what training
converges to) or trained ones, always at a common mean KL; as that KL is solved for, every prompt
counts by its influence on the mean there (:func:`benchmarks.arena.measuring.influence`).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.arena.measuring import divergences, influences, wins
from benchmarks.arena.world import Split, World
from benchmarks.methods import METHODS, Reinforced
from infalign import BestOfN
from infalign.evaluation import estimate, paired_difference
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.win_rate import decoded_masses

__all__ = ["AIMED", "DECODED", "RIVALS", "Judged", "entries", "ideal", "judged", "pooled"]

AIMED = BestOfN(4)
"""What aware methods train for."""
DECODED: Mapping[str, RankProcedure] = {"plain": BestOfN(1), "best-of-4": AIMED}
"""What everybody is decoded with."""
RIVALS = ("raw", "normalised")
"""What the others are compared with."""


def ideal(world: World, name: str, kl: float) -> Float[np.ndarray, "P C"] | None:
    """The optimum of a method on the training prompts at mean KL `kl`; None if out of its reach."""
    method = _made(name, kl)
    store = dataclasses.replace(world, k=None).store(0)
    phi = method.training_rewards(store)
    try:
        return tilt_atoms(store.masses, phi, beta_for_atoms_kl(store.masses, phi, kl))
    except ValueError:
        return None


@functools.cache
def _made(name: str, kl: float) -> Reinforced:
    method = METHODS[name].make(AIMED, kl)
    if not isinstance(method, Reinforced):
        raise ValueError(f"the optimum of {name!r} is not a tilt at a wanted KL.")
    return method


@dataclasses.dataclass(frozen=True)
class Judged:
    """A law on a split, judged: everything per prompt."""

    kl: float
    """Mean. Nats."""
    win_rates: Mapping[tuple[str, str], Float[np.ndarray, "P"]]
    """By (decoding, judge): influences, whose mean is the win rate at that KL."""
    gamed: Mapping[str, Float[np.ndarray, "P"]]
    """Mass on exploits after each decoding."""


def judged(
    law: Float[np.ndarray, "P C"],
    world: World,
    exploits: Bool[np.ndarray, "P C"],
    judges: Sequence[str],
    split: Split = "train",
    near: Float[np.ndarray, "P C"] | None = None,
) -> Judged:
    """Judges a law that has the rows of the split; `exploits` has all rows of the world.

    `near` is another law on the way on which the KL was solved for; None: the way from π_ref.
    """
    rows = world.rows(split)
    rewards, reference = world.judges["training"][rows], world.law[rows]

    def won(decoding: str, judge: str) -> Float[np.ndarray, "P"]:
        def value(of: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "P"]:
            return wins(of, world, split, DECODED[decoding], judge)

        return influences(value, law, reference, near)

    return Judged(
        float(divergences(law, reference).mean()),
        {(decoding, judge): won(decoding, judge) for decoding in DECODED for judge in judges},
        {
            name: (decoded_masses(law, rewards, procedure) * exploits[rows]).sum(1)
            for name, procedure in DECODED.items()
        },
    )


def pooled(some: Sequence[Judged]) -> Judged:
    """Mean over worlds with the same prompts, such as replicates of a bias, prompt by prompt."""
    return Judged(
        float(np.mean([one.kl for one in some])),
        {key: np.mean([one.win_rates[key] for one in some], 0) for key in some[0].win_rates},
        {key: np.mean([one.gamed[key] for one in some], 0) for key in some[0].gamed},
    )


def entries(
    found: Mapping[str, Judged], before: Mapping[str, Judged] | None = None
) -> dict[str, dict[str, Any]]:
    """Methods as results keep them, each compared with the rivals by the intended reward.

    Differences are paired by prompt, [value, low, high] of the 95 % interval over prompts. `before`
    are the same methods trained on the right reward: then `lost` is what the wrong one takes from
    a method, and `spared` what it takes from the rival less that, positive where the rival loses
    more.
    """
    won = {name: _intended(one) for name, one in found.items()}
    lost = {
        name: {key: _intended(before[name])[key] - values for key, values in won[name].items()}
        for name in won
        if before and name in before
    }
    kept = {}
    for name, one in found.items():
        kept[name] = _entry(one)
        others = [rival for rival in RIVALS[: len(RIVALS) - (name in RIVALS)] if rival != name]
        kept[name]["minus"] = {o: _less(won[name], won[o]) for o in others if o in won}
        if name in lost:
            kept[name]["lost"] = {key: short(estimate(few)) for key, few in lost[name].items()}
            kept[name]["spared"] = {o: _less(lost[o], lost[name]) for o in others if o in lost}
    return kept


def _intended(one: Judged) -> dict[str, Float[np.ndarray, "P"]]:
    return {decoding: one.win_rates[decoding, "intended"] for decoding in DECODED}


def _less(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {key: short(paired_difference(few, theirs[key])) for key, few in ours.items()}


def _entry(ours: Judged) -> dict[str, Any]:
    """Win rates with their intervals, the share that games without."""
    kept: dict[str, Any] = {"win_rate": {}, "gamed": {}}
    for (decoding, judge), values in ours.win_rates.items():
        kept["win_rate"].setdefault(decoding, {})[judge] = short(estimate(values))
    for decoding, values in ours.gamed.items():
        kept["gamed"][decoding] = round(float(values.mean()), 4)
    return kept


def short(found) -> list[float]:
    """Value, low and high end of the 95 % interval over prompts."""
    return [round(float(number), 4) for number in (found.value, found.low, found.high)]
