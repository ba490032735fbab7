"""What laws trained on a wrong reward win by the right one, and how much of them games it.

The procedure picks by the wrong reward, as it would in use. Laws are exact tilts (what training
converges to) or trained ones, always at a common mean KL.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.arena.measuring import divergences, wins
from benchmarks.arena.world import Split, World
from benchmarks.methods import METHODS, Reinforced
from infalign import BestOfN
from infalign.evaluation import estimate, paired_difference
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.win_rate import decoded_masses

__all__ = ["AIMED", "DECODED", "Judged", "compared", "entry", "ideal", "judged", "pooled", "spared"]

AIMED = BestOfN(4)
"""What aware methods train for."""
DECODED: Mapping[str, RankProcedure] = {"plain": BestOfN(1), "best-of-4": AIMED}
"""What everybody is decoded with."""


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
    """By (decoding, judge)."""
    gamed: Mapping[str, Float[np.ndarray, "P"]]
    """Mass on exploits after each decoding."""


def judged(
    law: Float[np.ndarray, "P C"],
    world: World,
    exploits: Bool[np.ndarray, "P C"],
    judges: Sequence[str],
    split: Split = "train",
) -> Judged:
    """Judges a law that has the rows of the split; `exploits` has all rows of the world."""
    rows = world.rows(split)
    rewards = world.judges["training"][rows]
    return Judged(
        float(divergences(law, world.law[rows]).mean()),
        {
            (name, judge): wins(law, world, split, procedure, judge)
            for name, procedure in DECODED.items()
            for judge in judges
        },
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


def entry(ours: Judged) -> dict:
    """As results keep it: win rates with their intervals, the share that games without."""
    kept: dict = {"kl": round(ours.kl, 4), "win_rate": {}, "gamed": {}}
    for (decoding, judge), values in ours.win_rates.items():
        kept["win_rate"].setdefault(decoding, {})[judge] = short(estimate(values))
    for decoding, values in ours.gamed.items():
        kept["gamed"][decoding] = round(float(values.mean()), 4)
    return kept


def compared(ours: Judged, theirs: Judged) -> dict:
    """Differences of win rates ours − theirs, paired by prompt, by the judges not trained on."""
    kept: dict = {}
    for (decoding, judge), values in ours.win_rates.items():
        if judge != "training":
            difference = paired_difference(values, theirs.win_rates[decoding, judge])
            kept.setdefault(decoding, {})[judge] = short(difference)
    return kept


def spared(ours: Judged, before: Judged, theirs: Judged, theirs_before: Judged) -> dict:
    """What a bias takes from theirs less what it takes from ours, by the intended reward.

    Paired by prompt; positive where ours loses less.
    """
    kept = {}
    for decoding in DECODED:
        key = decoding, "intended"
        lost = before.win_rates[key] - ours.win_rates[key]
        they_lost = theirs_before.win_rates[key] - theirs.win_rates[key]
        kept[decoding] = short(paired_difference(they_lost, lost))
    return kept


def short(found) -> list[float]:
    """Value, low and high end of the 95 % interval over prompts."""
    return [round(float(number), 4) for number in (found.value, found.low, found.high)]
