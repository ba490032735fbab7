"""Text policies at one KL: win rates paired by prompt, and what exact tilting would have won.

Only last checkpoints are compared. On the way, while the rate is high, a policy can be further from
the reference than where it ends, so a path is passed twice and says two things about one KL.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.arena.results import recorded
from benchmarks.frontier.text_measuring import procedures
from benchmarks.frontier.text_methods import Schedule
from benchmarks.frontier.text_world import Stored, TextWorld
from infalign.evaluation import estimate, ideal_table, paired_difference
from infalign.pipeline.measurement import Measurement, at_kl
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.transforms import Identity
from infalign.quantile.win_rate import frontier

__all__ = ["KLS", "compared", "described"]

KLS = (0.2, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Where policies are compared, if they got there. Nats."""
FARTHEST = 2.0
"""A policy is read at a KL only if it ended at most this many times as far: the way to it from the
reference is taken as linear in √KL, and that overlooks how win rates saturate."""
GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 2.5)
"""Where the limit is drawn. Nats."""
Paths = Mapping[str, Sequence[Measurement]]
"""Method → its checkpoints."""


def described(
    world: TextWorld,
    schedule: Schedule,
    store: Stored,
    paths: Paths,
    titles: Mapping[str, str],
    seconds: Mapping[str, Mapping[str, float] | None],
) -> dict[str, Any]:
    """All of one world that goes into the result."""
    return {
        "about": world.about,
        "procedure": world.procedure.name,
        "prompts": {split: len(world.asked(split)) for split in world.prompts},
        "trained_on": len(world.prompts["train"]),
        "rollouts": world.k,
        "samples": {"policy": world.samples, "reference": world.references},
        "schedule": {**vars(schedule), "points": list(schedule.points)},
        "methods": [
            {
                "name": name,
                "title": titles[name],
                "cpu_seconds": seconds.get(name),
                "checkpoints": [row for m in paths[name] for row in _checkpoint(world, m)],
            }
            for name in paths
        ],
        "compared": compared(world, paths),
        "ideal": _ideal(world, store),
        "limit": {
            "kl": list(GRID),
            "win_rate": [round(w, 5) for w in frontier(world.procedure, GRID)],
        },
    }


def _checkpoint(world: TextWorld, measured: Measurement) -> list[dict[str, Any]]:
    rows = []
    for (split, judge, procedure), wins in measured.wins.items():
        kl = float(measured.kl[split].mean())
        limit = _limit(world, procedure, kl)
        win = estimate(wins)
        rows.append(
            {
                "step": measured.step,
                "split": split,
                "judge": judge,
                "procedure": procedure,
                "kl": recorded(estimate(measured.kl[split])),
                "k1": recorded(estimate(measured.k1[split])),
                "win_rate": recorded(win),
                "limit": round(limit, 5),
                "fraction": round((win.value - 0.5) / (limit - 0.5), 4),
                "fraction_se": round(win.se / (limit - 0.5), 4),
            }
        )
    return rows


OURS = {"ahead": "optimal", "ahead_pairs": "optimal-pairs"}
"""Keys of paired differences, and whose lead over the row's method they are."""


def compared(world: TextWorld, paths: Paths) -> list[dict[str, Any]]:
    """Every method at every KL it can be read at, and how far the optimal Φ is ahead there."""
    keys = {key: None for path in paths.values() for m in path for key in m.wins}
    rows = []
    for split, judge, procedure in keys:
        for kl in KLS:
            read = {
                name: wins
                for name, path in paths.items()
                if path[-1].kl.get(split, np.zeros(1)).mean() <= FARTHEST * kl
                and (wins := at_kl(path[-1:], split, judge, procedure, kl)) is not None
            }
            for name, wins in read.items():
                row = {"split": split, "judge": judge, "procedure": procedure, "kl": kl}
                row |= {"method": name, "win_rate": recorded(estimate(wins))}
                row["limit"] = round(_limit(world, procedure, kl), 5)
                for key, ours in OURS.items():
                    if ours in read and name != ours:
                        row[key] = recorded(paired_difference(read[ours], wins))
                rows.append(row)
    return rows


def _limit(world: TextWorld, procedure: str, kl: float) -> float:
    """What no policy exceeds at this KL, by the training reward."""
    return float(frontier(procedures(world)[procedure], [kl])[0])


def _ideal(world: TextWorld, store: Stored, seed: int = 0) -> list[dict[str, Any]]:
    """Exact tilts of the stored rollouts, cross-fitted: what training is short of."""
    rows = []
    for kl in KLS[1:]:
        found = ideal_table(
            store.rewards,
            [Identity(), optimal_transform(world.procedure, kl=kl)],
            list(procedures(world).values()),
            kl,
            rng=np.random.default_rng(seed),
        )
        for row in found:
            kept = {"kl": kl, "name": row.name, "procedure": row.procedure}
            kept["win_rate"] = recorded(row.win_rate)
            if row.gain is not None:
                kept["ahead_of_raw"] = recorded(row.gain)
            rows.append(kept)
    return rows
