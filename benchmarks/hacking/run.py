"""Claim 4: a calibrated reward is gamed less where an exploit is rare and rewarded out of scale.

python -m benchmarks.hacking.run [--smoke] [--only-kept] [--list-runs] [--worlds NAME ...]

Runs are made once and kept; what is interrupted goes on by the same command.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arena.results import about, save
from benchmarks.arena.runs import ensure
from benchmarks.arena.world import World
from benchmarks.hacking.cases import CASES, NAMES, TRAINED_IN, Case, case, runs_of
from benchmarks.hacking.judged import Judged, compared, entry, ideal, judged, pooled, spared
from benchmarks.hacking.measuring import GRID, against, curves, ideals, judges, sweep, trained
from benchmarks.hacking.null_model import described, null_model, without_null_model
from benchmarks.methods import METHODS

__all__ = ["main"]

HERE = Path(__file__).parent
SEED = 0
KL = 1.0
"""At which everything is compared. Nats."""
HELD_OUT = (0.2, 0.3)
"""KLs on new prompts, where a trained model moves less."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim; returns what `result.json` gets."""
    options = _options(argv)
    worlds, absent = _worlds(options.worlds or (["made"] if options.smoke else list(WORLDS)))
    if options.list_runs:
        _list(worlds)
        return {}
    result: dict[str, Any] = {
        "about": about(seed=SEED, mode="smoke" if options.smoke else "full", kl=KL),
        "titles": {name: METHODS[name].title for name in (*NAMES, "log_sigmoid")},
        "absent": absent,
        "worlds": {},
    }
    for name, world in worlds.items():
        result["worlds"][name] = _measured(name, world, options)
    if not options.smoke:
        result["null_model"] = _null_model(absent)
        if "answers" in worlds:
            result["heads"] = _heads(worlds["answers"])
    path = options.output or (None if options.smoke or options.worlds else HERE / "result.json")
    if path:
        save(Path(path), result)
    return result


def _measured(name: str, world: World, options: argparse.Namespace) -> dict[str, Any]:
    chosen = [case(world, one) for one in (("honest", "rare word") if options.smoke else CASES)]
    found: dict[str, Any] = {
        "about": world.about,
        "prompts": world.trained,
        "responses": world.law.shape[1],
        "cases": {},
    }
    honest = ideals(chosen[0], NAMES, KL)
    kls = (KL,) if options.smoke else GRID
    for one in chosen:
        is_trained = one.name in TRAINED_IN.get(name, ("rare word",))
        if is_trained and not options.only_kept:
            ensure(one.world, runs_of(), _told(f"{name}, {one.name}"))
        found["cases"][one.name] = _case(one, honest, is_trained, kls)
    few = {"shares": (0.1,), "sizes": (0.0, 10.0), "replicates": 1} if options.smoke else {}
    found["sweep"] = sweep(world, KL, **few)
    return found


def _case(
    one: Case, honest: Mapping[str, Judged], is_trained: bool, kls: Sequence[float]
) -> dict[str, Any]:
    reference = judged(one.world.law[one.world.rows("train")], one.world, one.gamed, ["training"])
    optima = ideals(one, NAMES, KL)
    kept = against(optima)
    for name, found in optima.items():
        if name in honest:
            kept[name]["minus_honest"] = {
                decoding: judges["intended"]
                for decoding, judges in compared(found, honest[name]).items()
            }
    rows = trained(one, NAMES, "train", (KL,)) if is_trained else []
    if is_trained and "held-out" in one.world.splits:
        rows += trained(one, NAMES, "held-out", HELD_OUT)
    return {
        "bias": repr(one.bias),
        "reference_gamed": entry(reference)["gamed"],
        "agreement": _agreement(one.world),
        "ideal": kept,
        "curves": curves(one, NAMES, kls),
        "trained": rows,
    }


def _null_model(absent: dict[str, str]) -> dict[str, Any] | None:
    try:
        one, other = null_model(), without_null_model()
    except (FileNotFoundError, ModuleNotFoundError) as why:
        absent["null model"] = str(why).split("\n")[0]
        return None
    names = (*NAMES, "log_sigmoid")
    reference = judged(one.world.law, one.world, one.gamed, judges(one.world))
    clean = ideals(other, names, KL)
    return {
        "about": one.world.about,
        "judge": described(one),
        "reference_gamed": entry(reference)["gamed"],
        "ideal": {str(kl): against(ideals(one, names, kl)) for kl in (0.5, 1.0, 2.0)},
        "without": against(clean),
        "spared": _spared(ideals(one, names, KL), clean),
        "curves": curves(one, names, (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)),
    }


def _heads(world: World) -> dict[str, Any]:
    """Corrupted reward heads: optima, averaged over random corruptions prompt by prompt."""
    from benchmarks.hacking.heads import FLIPPED, REPLICATES, WEIGHTS, corrupted, overrated

    kept: dict[str, Any] = {"flipped": FLIPPED, "weights": WEIGHTS, "replicates": REPLICATES}
    honest: dict[str, Judged] = {}  # the first kind is not corrupted
    for kind, some in corrupted(world).items():
        found = [{name: judged_ideal(one, name, overrated(one)) for name in NAMES} for one in some]
        means = {name: pooled([one[name] for one in found]) for name in NAMES}
        honest = honest or means
        kept[kind] = {
            "agreement": [_agreement(one) for one in some],
            "ideal": against(means),
            "spared": _spared(means, honest),
        }
    return kept


def _spared(wrong: Mapping[str, Judged], right: Mapping[str, Judged]) -> dict[str, Any]:
    """What each method loses less than raw reward does, from right to wrong."""
    return {
        name: spared(found, right[name], wrong["raw"], right["raw"])
        for name, found in wrong.items()
        if name != "raw"
    }


def judged_ideal(world: World, name: str, gamed: np.ndarray) -> Judged:
    """A method's optimum at KL, judged; every method reaches it in these worlds."""
    law = ideal(world, name, KL)
    if law is None:
        raise ValueError(f"{name} cannot reach a KL of {KL} in {world.name}.")
    return judged(law, world, gamed, judges(world))


def _agreement(world: World) -> dict[str, float]:
    """How often the wrong reward orders two responses of the reference as another judge does."""
    rows = world.rows("train")
    law, wrong = world.law[rows], world.judges["training"][rows]
    pairs = np.einsum("pi,pj->pij", law, law)
    differs = np.sign(wrong[:, :, None] - wrong[:, None, :])
    kept = {}
    for name in judges(world)[1:]:
        right = world.judges[name][rows]
        ordered = np.sign(right[:, :, None] - right[:, None, :])
        told_apart = (pairs * (ordered != 0)).sum((1, 2))
        same = (pairs * (1 + differs * ordered) / 2 * (ordered != 0)).sum((1, 2))
        kept[name] = round(float((same / told_apart)[told_apart > 0].mean()), 4)
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


def _worlds(names: Sequence[str]) -> tuple[dict[str, World], dict[str, str]]:
    """Those that can be made here, and why the others cannot."""
    made, absent = {}, {}
    for name in names:
        try:
            made[name] = {**WORLDS, "made": _made}[name]()
        except (FileNotFoundError, ModuleNotFoundError) as why:
            absent[name] = str(why).split("\n")[0]
            print(f"{name} is skipped: {absent[name]}", file=sys.stderr)
    return made, absent


def _list(worlds: Mapping[str, World]) -> None:
    """Prints world, case, label and whether it was made."""
    for name, world in worlds.items():
        for one in TRAINED_IN.get(name, ("rare word",)):
            target = case(world, one).world
            for run in runs_of():
                state = "made" if run.path(target).exists() else "missing"
                print(f"{target.name}\t{run.label}\tseed {run.seed}\t{state}")


def _told(world: str) -> Callable[[int, int, str], None]:
    def tell(done: int, all_of_them: int, label: str) -> None:
        print(f"{world}: {done}/{all_of_them} {label}", file=sys.stderr, flush=True)

    return tell


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hacking.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--smoke", action="store_true", help="seconds, a made world")
    parser.add_argument("--only-kept", action="store_true", help="read runs that are there")
    parser.add_argument("--list-runs", action="store_true", help="name the runs that it takes")
    worlds = {"nargs": "+", "choices": list(WORLDS), "metavar": "WORLD"}
    parser.add_argument("--worlds", **worlds, help=f"of {', '.join(WORLDS)}; writes no result")
    parser.add_argument("--output", metavar="FILE", help="instead of result.json beside this file")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
