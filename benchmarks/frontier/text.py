"""Claim 1 on free text: the real model, sampled, every method on the same store of rollouts.

python -m benchmarks.frontier.text [--smoke] [--only-kept] [--worlds NAME ...] [--methods NAME ...]

Every measurement is kept as it is made and `text.json` is written after each method, so what is
interrupted goes on by the same command; `--only-kept` writes it from what is there.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.frontier.text_comparing import described
from benchmarks.frontier.text_measuring import judge_by_gold, measure
from benchmarks.frontier.text_methods import TITLES, Schedule, prepared
from benchmarks.frontier.text_smoke import SCHEDULE, made
from benchmarks.frontier.text_world import (
    Progress,
    Stored,
    TextWorld,
    film,
    gold_of_reference,
    harmless,
    stored,
)
from benchmarks.worlds.data import MissingData
from infalign.assets import AssetError
from infalign.evaluation import estimate
from infalign.pipeline.measurement import Measurement
from infalign.training.solver import Row

__all__ = ["FULL", "SMOKE", "judge", "kept", "main", "run", "trained"]

HERE = Path(__file__).parent
SEED = 0
Case = tuple[Callable[[], TextWorld], Schedule, tuple[str, ...]]
FULL: Mapping[str, Case] = MappingProxyType(
    {
        "film": (film, Schedule(), tuple(TITLES)),
        "harmless": (harmless, Schedule(), tuple(TITLES)),
    }
)
"""World → how it is made, the compute of every method there, the methods."""
SMOKE: Case = (made, SCHEDULE, ("optimal", "identity", "raw", "ipo", "raw-online"))


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures the claim on free text; returns what `text.json` gets."""
    options = _options(argv)
    if options.smoke:
        return _smoke(options.output)
    result: dict[str, Any] = {"about": about(seed=SEED, mode="full"), "absent": {}, "worlds": {}}
    for name in options.worlds or FULL:
        make, schedule, methods = FULL[name]
        try:
            world = make()
            policy = None if options.only_kept else world.policy(SEED)
        except (AssetError, MissingData) as missing:
            print(f"{name} is left out: {missing}", file=sys.stderr)
            result["absent"][name] = str(missing)
            continue
        store = stored(world, policy, _told(world))
        chosen = [method for method in options.methods or methods if method in methods]
        for _ in [] if options.only_kept else trained(world, schedule, chosen, store):
            result["worlds"][name] = _described(world, schedule, store, methods)
            save(Path(options.output or HERE / "text.json"), result)
        result["worlds"][name] = _described(world, schedule, store, methods)
        save(Path(options.output or HERE / "text.json"), result)
    return result


def _smoke(output: str | None) -> dict[str, Any]:
    make, schedule, methods = SMOKE
    result: dict[str, Any] = {"about": about(seed=SEED, mode="smoke"), "absent": {}}
    with tempfile.TemporaryDirectory() as folder:
        world = dataclasses.replace(make(), root=Path(folder))
        store = stored(world, world.policy(SEED), _told(world))
        list(trained(world, schedule, methods, store))
        result["worlds"] = {world.name: _described(world, schedule, store, methods)}
    if output:
        save(Path(output), result)
    return result


def trained(
    world: TextWorld, schedule: Schedule, names: Sequence[str], store: Stored
) -> Iterator[str]:
    """Makes the runs that are missing, one method after another; then gold judges them all."""
    told = _told(world)
    for name in names:
        if not _is_finished(world, schedule, name, store):
            run(world, schedule, name, store, told)
            yield name
    judge(world, schedule, names, store, told)


def _told(world: TextWorld) -> Progress:
    def told(what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {world.name}: {what}", file=sys.stderr, flush=True)

    return told


def _described(
    world: TextWorld, schedule: Schedule, store: Stored, methods: Sequence[str]
) -> dict[str, Any]:
    paths = {name: kept(world, schedule, name, store) for name in methods}
    paths = {name: path for name, path in paths.items() if path}
    seconds = {name: _seconds(world, schedule, name, store) for name in paths}
    return described(world, schedule, store, paths, TITLES, seconds)


def run(world: TextWorld, schedule: Schedule, name: str, store: Stored, told: Progress) -> None:
    """Trains one method on a fresh adapter and keeps its measurements, one by one."""
    policy = world.policy(SEED)
    solver, problem = prepared(name, world, store, schedule)
    folder = _folder(world, schedule, name, store)
    clock = {"train": 0.0, "measure": 0.0}
    mark = time.process_time()

    def callback(row: Row) -> None:
        nonlocal mark
        clock["train"] += time.process_time() - mark
        mark = time.process_time()
        done = int(row["step"]) + 1
        if done in schedule.points:
            sampled = measure(policy, world, store, done, last=done == schedule.points[-1])
            sampled.save(folder)
            clock["measure"] += time.process_time() - mark
            (folder / "seconds.json").write_text(json.dumps(clock))
            told(f"{name}, step {done}: {_short(world, sampled.measurement)}")
        mark = time.process_time()

    told(f"{name}")
    solver.train(policy, problem, callback=callback, rng=np.random.default_rng([SEED, 1]))


def _short(world: TextWorld, found: Measurement) -> str:
    win = estimate(found.wins["train", "training", world.procedure.name])
    kl = found.kl["train"].mean()
    return f"KL {kl:.3f}, {world.procedure.name} {win.value:.3f} ± {win.se:.3f}"


def judge(
    world: TextWorld, schedule: Schedule, names: Sequence[str], store: Stored, told: Progress
) -> None:
    """Asks the gold judge about every last checkpoint that it has not judged."""
    last, missing = schedule.points[-1], []
    for name in names:
        path = kept(world, schedule, name, store)
        if path and path[-1].step == last and not any(key[1] == "gold" for key in path[-1].wins):
            missing.append(name)
    if not missing:
        return
    told("gold judges the reference")
    gold = gold_of_reference(world)
    for name in missing:
        told(f"gold judges {name}")
        judge_by_gold(_folder(world, schedule, name, store), last, world, store, gold)


def kept(world: TextWorld, schedule: Schedule, name: str, store: Stored) -> list[Measurement]:
    """The checkpoints of a method that have been measured."""
    folder = _folder(world, schedule, name, store)
    return [Measurement.load(path) for path in sorted(folder.glob("step-*.npz"))]


def _is_finished(world: TextWorld, schedule: Schedule, name: str, store: Stored) -> bool:
    return len(kept(world, schedule, name, store)) == len(schedule.points)


def _seconds(
    world: TextWorld, schedule: Schedule, name: str, store: Stored
) -> dict[str, float] | None:
    path = _folder(world, schedule, name, store) / "seconds.json"
    return json.loads(path.read_text()) if path.exists() else None


def _folder(world: TextWorld, schedule: Schedule, name: str, store: Stored) -> Path:
    """Named by the method and a hash of all that its measurements depend on."""
    settings = (schedule, world.k, world.samples, world.references, world.measured, world.ids)
    digest = hashlib.sha256(repr(settings).encode())
    for rewards in (store.rewards, *store.fresh.values()):
        digest.update(rewards.round(4).tobytes())
    return world.folder / "runs" / f"{name}-seed{SEED}-{digest.hexdigest()[:10]}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.frontier.text", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a made world, seconds")
    parser.add_argument("--only-kept", action="store_true", help="train nothing")
    parser.add_argument("--worlds", nargs="+", metavar="NAME", choices=sorted(FULL))
    parser.add_argument("--methods", nargs="+", metavar="NAME", choices=sorted(TITLES))
    parser.add_argument("--output", help="where the result goes instead of text.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    program(main)
