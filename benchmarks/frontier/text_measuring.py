"""What a trained policy does on fresh samples, and how policies compare at one KL."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.frontier.text_world import Stored, TextWorld
from infalign.evaluation import win_rate_samples
from infalign.pipeline.measurement import SPLITS, Measurement, Split
from infalign.prompts import Prompt
from infalign.quantile.procedures import BestOfN, RankProcedure
from infalign.rollouts.shards import write_atomically

__all__ = ["STANDARD", "Sampled", "judge_by_gold", "measure", "procedures"]

STANDARD = BestOfN(1)
DIVERGENCES = 8
"""Samples per prompt on which the KL is measured; its Rao–Blackwellised noise is small."""
CHUNK = 8
"""Prompts sampled together."""


def procedures(world: TextWorld) -> dict[str, RankProcedure]:
    """By name: the world's own, and no decoding."""
    return {procedure.name: procedure for procedure in (world.procedure, STANDARD)}


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What a checkpoint said, so that other judges can be asked later."""

    measurement: Measurement
    """By the training reward."""
    texts: dict[Split, list[list[str]]]
    """m of each measured prompt."""
    rewards: dict[Split, Float[np.ndarray, "P m"]]
    """Theirs, by the training reward."""

    def save(self, folder: Path) -> None:
        """Writes all of it, whole or not at all."""
        step = self.measurement.step
        said = {
            split: {"texts": self.texts[split], "rewards": self.rewards[split].tolist()}
            for split in self.texts
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"said-{step:04d}.json", json.dumps(said).encode(), folder)
        self.measurement.save(folder / f"step-{step:04d}.npz")


def measure(
    policy: Any, world: TextWorld, store: Stored, step: int, *, last: bool, seed: int = 3
) -> Sampled:
    """Samples the policy and judges it against the fresh reference.

    On the way only the training prompts are asked, the last time both sides of the split. All
    policies are sampled with the same random numbers, so that they differ by what they are and
    hardly by chance; the reference's samples are of other numbers, hence independent.
    """
    kl, k1, wins, said, rewards = {}, {}, {}, {}, {}
    judge = world.judges["training"]()
    for split in SPLITS if last else SPLITS[:1]:
        texts = [prompt.text for prompt in world.asked(split)]
        responses = _samples(policy, world.asked(split), world.samples, seed)
        scores = policy.scores(texts, [row[:DIVERGENCES] for row in responses])
        kl[split] = scores.kl.mean(1).numpy()
        k1[split] = (scores.log_prob - scores.reference_log_prob).mean(1).numpy()
        said[split] = [[response.text for response in row] for row in responses]
        rewards[split] = np.asarray(judge(texts, said[split]), dtype=float)
        for name, procedure in procedures(world).items():
            wins[split, "training", name] = win_rate_samples(
                rewards[split], store.fresh[split], procedure
            )
    return Sampled(Measurement(step, kl, k1, wins), said, rewards)


def judge_by_gold(
    folder: Path,
    step: int,
    world: TextWorld,
    store: Stored,
    gold: Mapping[Split, Float[np.ndarray, "P M"]],
) -> None:
    """Adds the gold judge to a kept measurement: the procedure picks by the training reward."""
    path = folder / f"step-{step:04d}.npz"
    found, judge = Measurement.load(path), world.judges["gold"]()
    for split, kept in json.loads((folder / f"said-{step:04d}.json").read_text()).items():
        texts = [prompt.text for prompt in world.asked(split)]
        judged = np.asarray(judge(texts, kept["texts"]), dtype=float)
        for name, procedure in procedures(world).items():
            found.wins[split, "gold", name] = win_rate_samples(
                np.array(kept["rewards"]),
                store.fresh[split],
                procedure,
                policy_judged=judged,
                reference_judged=gold[split],
            )
    found.save(path)


def _samples(policy: Any, prompts: tuple[Prompt, ...], m: int, seed: int) -> list[Any]:
    found = []
    for start in range(0, len(prompts), CHUNK):
        texts = [prompt.text for prompt in prompts[start : start + CHUNK]]
        key = int(prompts[start].id, 16) % 2**32
        found += policy.sample(texts, m, np.random.default_rng([seed, key]))
    return found
