"""Claim 4: a calibrated reward is gamed less where an exploit is rare and rewarded out of scale.

python -m benchmarks.hacking.run [--smoke] [--only-kept] [--list-runs] [--worlds NAME ...]

Runs are made once and kept; what is interrupted goes on by the same command.
"""

import argparse
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arena.asking import made_worlds, parsed, target, told
from benchmarks.arena.pieces import piece
from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.arena.runs import ensure
from benchmarks.arena.world import World
from benchmarks.hacking.cases import CASES, NAMES, TRAINED_IN, Case, case, runs_of
from benchmarks.hacking.judged import Judged, entries, judged, pooled
from benchmarks.hacking.measuring import GRID, agreement, curves, ideals, sweep, trained
from benchmarks.hacking.null_model import described, null_model, without_null_model
from benchmarks.methods import METHODS
from infalign.rollouts.shards import write_atomically

__all__ = ["main"]

HERE = Path(__file__).parent
SEED = 0
KL = 1.0
"""At which everything is compared. Nats."""
HELD_OUT = (0.3, 0.5)
"""KLs on new prompts, where a trained model moves less."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = parsed("hacking", __doc__, argv, WORLDS, lists=True)
    chosen = options.worlds or (["made"] if options.smoke else list(WORLDS))
    worlds, absent = made_worlds({name: {**WORLDS, "made": _made}[name] for name in chosen})
    if options.list_runs:
        _list(worlds)
        return {}
    if not options.smoke:
        absent |= {name: "not asked for" for name in WORLDS if name not in chosen}
    unread: dict[str, list[str]] = {}
    result: dict[str, Any] = {
        "about": about(seed=SEED, mode="smoke" if options.smoke else "full", kl=KL),
        "titles": {name: METHODS[name].title for name in (*NAMES, "log_sigmoid")},
        "absent": absent,
        "unread": unread,
        "worlds": {},
    }
    for name, world in worlds.items():
        result["worlds"][name] = _measured(name, world, options, unread)
    if not options.smoke:
        result["null_model"] = _null_model(options, absent, unread)
        if "answers" in worlds:
            result["heads"] = _heads(worlds["answers"], options, unread)
    if path := target(options, HERE):
        _save(path, result)
    return result


def _save(path: Path, result: Mapping[str, Any]) -> None:
    """As :func:`benchmarks.arena.results.save`, what is innermost on one line: half the size."""
    save(path, result)
    text = path.read_text(encoding="utf-8")
    for innermost in (r"\[[^\[\]{}]*\]", r"\{[^{}]{,200}\}"):
        text = re.sub(innermost, lambda found: re.sub(r"\n\s*", " ", found[0]), text)
    write_atomically(path, text.encode(), path.parent)


def _measured(
    name: str, world: World, options: argparse.Namespace, unread: dict[str, list[str]]
) -> dict[str, Any]:
    chosen = [case(world, one) for one in (("honest", "rare word") if options.smoke else CASES)]
    found: dict[str, Any] = {
        "about": world.about,
        "prompts": world.trained,
        "responses": world.law.shape[1],
        "cases": {},
    }
    honest = functools.cache(lambda: ideals(chosen[0], NAMES, KL))
    kls = (KL,) if options.smoke else GRID
    key = world.fingerprint, NAMES, KL, kls
    honestly: dict[str, dict[str, Judged]] = {}  # by split and KL, trained
    for one in chosen:
        rows = []
        if one.name in TRAINED_IN:
            rows = _trained(f"{name}, {one.name}", one, options, unread, honestly)
        exact = _kept(f"{name}-{one.name}", (key, one.bias), options, _case, one, honest, kls)
        found["cases"][one.name] = exact | {"trained": rows}
    few = {"shares": (0.1,), "sizes": (0.0, 10.0), "replicates": 1} if options.smoke else {}
    found["sweep"] = _kept(
        f"{name}-sweep", key, options, functools.partial(sweep, **few), world, KL
    )
    return found


def _kept(
    name: str, key: Any, options: argparse.Namespace, make: Callable[..., Any], *given: Any
) -> Any:
    """What is exact takes minutes, too: made once and kept; a smoke run keeps nothing."""
    if options.smoke:
        return make(*given)
    return piece("hacking", name, key, lambda: make(*given))


def _case(
    one: Case, honest: Callable[[], Mapping[str, Judged]], kls: Sequence[float]
) -> dict[str, Any]:
    return {
        "bias": repr(one.bias),
        "reference_gamed": _reference_gamed(one),
        "agreement": agreement(one.world),
        "ideal": entries(ideals(one, NAMES, KL), honest()),
        "curves": curves(one, NAMES, kls),
    }


def _trained(
    title: str,
    one: Case,
    options: argparse.Namespace,
    unread: dict[str, list[str]],
    honestly: dict[str, dict[str, Judged]],
) -> list[dict[str, Any]]:
    """Runs read on every split; `unread` gets the methods that have no reading at a KL.

    None was made that went so far, or it went farther than 1.5 times as far.

    The first case asked about is the honest one: `honestly` remembers it for the others.
    """
    if not options.only_kept:
        ensure(one.world, runs_of(), told(title))
    rows = []
    for split in one.world.splits:
        for kl in (KL,) if split == "train" else HELD_OUT:
            found, away = trained(one, NAMES, split, kl)
            if missing := [name for name in NAMES if name not in found]:
                unread[f"{title}, {split}, KL {kl:g}"] = missing
            kept = entries(found, honestly.setdefault(f"{split} {kl:g}", found))
            for name, one_of_them in found.items():
                kept[name] |= {"kl": round(one_of_them.kl, 4), "away": away.get(name)}
            if kept:
                rows.append({"split": split, "kl": kl, "methods": kept})
    return rows


def _reference_gamed(one: Case) -> dict[str, float]:
    law = one.world.law[one.world.rows("train")]
    found = judged(law, one.world, one.gamed, [])
    return {key: round(float(share.mean()), 4) for key, share in found.gamed.items()}


def _null_model(
    options: argparse.Namespace, absent: dict[str, str], unread: dict[str, list[str]]
) -> dict[str, Any] | None:
    try:
        one, other = null_model(), without_null_model()
    except (FileNotFoundError, ModuleNotFoundError) as why:
        absent["null model"] = str(why).split("\n")[0]
        return None
    kept = _kept("null-model", one.world.fingerprint, options, _null_optima, one, other)
    return kept | {"trained": _trained("null model", one, options, unread, {"train 1": {}})}


def _null_optima(one: Case, other: Case) -> dict[str, Any]:
    names = (*NAMES, "log_sigmoid")
    clean = ideals(other, names, KL)
    found = {str(kl): entries(ideals(one, names, kl)) for kl in (0.5, 2.0)}
    found[str(KL)] = entries(ideals(one, names, KL), clean)
    return {
        "about": one.world.about,
        "judge": described(one),
        "reference_gamed": _reference_gamed(one),
        "ideal": dict(sorted(found.items())),
        "without": entries(clean),
        "curves": curves(one, names, (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)),
    }


def _heads(
    world: World, options: argparse.Namespace, unread: dict[str, list[str]]
) -> dict[str, Any]:
    """Corrupted reward heads: optima, averaged over random corruptions prompt by prompt.

    Trained is the first corruption of each kind.
    """
    from benchmarks.hacking.heads import FLIPPED, REPLICATES, WEIGHTS, corrupted

    kept: dict[str, Any] = {"flipped": FLIPPED, "weights": WEIGHTS, "replicates": REPLICATES}
    kinds = corrupted(world)
    prints = [one.world.fingerprint for some in kinds.values() for one in some]
    kept |= _kept("heads", prints, options, _head_optima, kinds)
    honestly: dict[str, dict[str, Judged]] = {}
    for kind, some in kinds.items():
        rows = _trained(f"answers, {kind}", some[0], options, unread, honestly)
        kept[kind] = kept[kind] | {"trained": rows}
    return kept


def _head_optima(kinds: Mapping[str, Sequence[Case]]) -> dict[str, Any]:
    kept, honest = {}, {}  # the first kind is not corrupted
    for kind, some in kinds.items():
        found = [ideals(one, NAMES, KL) for one in some]
        means = {name: pooled([one[name] for one in found]) for name in NAMES}
        honest = honest or means
        kept[kind] = {
            "agreement": [agreement(one.world) for one in some],
            "ideal": entries(means, honest),
        }
    return kept


def _openings() -> World:
    from benchmarks.worlds.openings import openings

    return openings()


def _answers() -> World:
    from benchmarks.worlds.answers import answers

    return answers()


def _harmless() -> World:
    from benchmarks.worlds.harmless import harmless

    return harmless()


def _made() -> World:
    from benchmarks.worlds.made import made

    return made(prompts=24, responses=24)


WORLDS: Mapping[str, Callable[[], World]] = {
    "openings": _openings,
    "answers": _answers,
    "harmless": _harmless,
}


def _list(worlds: Mapping[str, World]) -> None:
    """Prints world, case, label and whether it was made."""
    for world in worlds.values():
        for one in TRAINED_IN:
            target = case(world, one).world
            for run in runs_of():
                state = "made" if run.path(target).exists() else "missing"
                print(f"{target.name}\t{run.label}\tseed {run.seed}\t{state}")


if __name__ == "__main__":
    program(main)
