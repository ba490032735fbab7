"""Where best-of-n turns down and a chain does not: a reward that is wrong in its tail.

Enumerable language models of three tokens and at most four of them (121 responses), four classes of
answers of which one is right, and a reward of 1.5·right plus heavy-tailed noise (Student's t with
three degrees of freedom), fixed for each response. Best-of-n finds the noise's maximum; votes and
chains approach the aligned policy at β = 1. Writes inflection.json.

    python benchmarks/decoding/inflection.py [--prompts 150] [--repeats 5] [--worlds 4] [--smoke]
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded

import argparse
import dataclasses
import gc
import json
import time
from pathlib import Path

import numpy as np

from infalign.decoding import decode
from infalign.decoding.mcmc import MCMC, RewardTilt
from infalign.decoding.voting import vote
from infalign.policies import TabularLM
from infalign.prompts import Prompt
from infalign.quantile.tilting import tilt_atoms

SIZES = (1, 4, 16, 64, 256, 1024)
ROWS = ("best of n", "majority vote", "weighted vote", "chain and vote")
BETA = 1.0


@dataclasses.dataclass(frozen=True)
class World:
    """P prompts, S responses to each."""

    lm: TabularLM
    rewards: np.ndarray
    classes: np.ndarray
    right: np.ndarray

    @classmethod
    def random(cls, prompts: int, seed: int) -> "World":
        """Classes at random, mildly favoured or not by the language model; one of four is right."""
        rng = np.random.default_rng(seed)
        names = tuple(f"prompt {i}" for i in range(prompts))
        lm = TabularLM.random(names, ("a", "b", "c"), 4, rng)
        shape = (prompts, len(lm.sequences))
        classes, bias = rng.integers(0, 4, shape), 0.5 * rng.standard_normal((prompts, 4))
        masses = tilt_atoms(lm.masses, np.take_along_axis(bias, classes, 1), 1.0)
        right = rng.integers(0, 4, prompts)
        rewards = 1.5 * (classes == right[:, None]) + rng.standard_t(3, shape)
        return cls(TabularLM.from_masses(lm, masses), rewards, classes, right)

    @property
    def name(self) -> str:
        """As a reward: what the response to a prompt is worth."""
        return "right, with noise"

    def __call__(self, prompts, responses):
        """The rewards of texts."""
        places = {text: place for place, text in enumerate(self.lm.texts())}
        rows = self.lm.rows(prompts)
        columns = [[places[text] for text in row] for row in responses]
        return np.stack([self.rewards[p, row] for p, row in zip(rows, columns, strict=True)])

    def limits(self) -> dict[str, float]:
        """Accuracy with endless compute: the reward's maximum, and modes over classes."""
        right, best = self.right, self.rewards.argmax(1)
        tilted = tilt_atoms(self.lm.masses, self.rewards, BETA)
        modes = {
            row: np.stack([(law * (self.classes == c)).sum(1) for c in range(4)], 1).argmax(1)
            for row, law in zip(ROWS[1:], (self.lm.masses, tilted, tilted), strict=True)
        }
        found = {ROWS[0]: self.classes[np.arange(len(best)), best]} | modes
        return {row: float((classes == right).mean()) for row, classes in found.items()}


def accuracies(world: World, repeats: int, seed: int, sizes=SIZES) -> np.ndarray:
    """Share of right answers: "P rows sizes". Smaller n are beginnings of the same draws."""
    rng, longest = np.random.default_rng(seed), max(sizes)
    prompts = [Prompt.from_text(text) for text in world.lm.prompts]
    walk = MCMC(RewardTilt(BETA), rounds=longest - 1, chains=repeats)
    chains = decode(world.lm, prompts, world, walk, rng=rng)
    found = np.zeros((len(prompts), len(ROWS), len(sizes)))
    for p, chain in enumerate(chains):
        states = np.array([world.lm.places[state.token_ids] for state in chain.candidates])
        drawn = rng.choice(len(world.rewards[p]), states.size, p=world.lm.masses[p])
        for column, size in enumerate(sizes):
            for few, walked in zip(
                drawn.reshape(repeats, -1)[:, :size],
                states.reshape(repeats, -1)[:, :size],
                strict=True,
            ):
                answers = answer(world.rewards[p], world.classes[p], few, walked, rng)
                found[p, :, column] += np.array(answers) == world.right[p]
    return found / repeats


def answer(rewards, classes, drawn, walked, rng) -> list[int]:
    """The class that each of the ROWS answers with."""
    values, ones = rewards[drawn], np.ones(len(drawn))
    said, stated = classes[drawn], classes[walked]
    weights = np.exp((values - values.max()) / BETA)
    return [
        said[values.argmax()],
        said[vote(said.tolist(), ones, rng)],
        said[vote(said.tolist(), weights, rng)],
        stated[vote(stated.tolist(), ones, rng)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=150, help="in each world")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worlds", type=int, default=4, help="seeds 0, 1, …")
    parser.add_argument("--smoke", action="store_true", help="seconds; writes nothing")
    asked = parser.parse_args()
    if asked.smoke:
        asked.prompts, asked.repeats, asked.worlds = 10, 2, 1
    gc.disable()  # millions of responses, none in a cycle
    start = time.process_time()
    worlds = [World.random(asked.prompts, seed) for seed in range(asked.worlds)]
    each = [accuracies(world, asked.repeats, seed) for seed, world in enumerate(worlds)]
    found, seconds = np.concatenate(each), time.process_time() - start
    limits = {row: float(np.mean([w.limits()[row] for w in worlds])) for row in ROWS}
    table = {
        row: dict(zip(map(str, SIZES), found[:, i].mean(0).round(4).tolist(), strict=True))
        | {"limit": round(limits[row], 4)}
        for i, row in enumerate(ROWS)
    }
    for row, numbers in table.items():
        print(f"{row:16}", *(f"{value:.3f}" for value in numbers.values()))
    gains = {
        "best of n, 1024 against 64": found[:, 0, 5] - found[:, 0, 3],
        "chain and vote, 1024 against 64": found[:, 3, 5] - found[:, 3, 3],
        "chain and vote against best of n at 1024": found[:, 3, 5] - found[:, 0, 5],
        "chain and vote against weighted vote at 1024": found[:, 3, 5] - found[:, 2, 5],
    }
    differences = {
        what: [round(float(gain.mean()), 4), round(float(gain.std() / len(gain) ** 0.5), 4)]
        for what, gain in gains.items()
    }
    print(
        *(f"{what}: {mean:+.3f} ± {se:.3f}" for what, (mean, se) in differences.items()), sep="\n"
    )
    if not asked.smoke:
        record = {"settings": vars(asked), "accuracy": table, "differences": differences}
        record["processor_seconds"] = round(seconds, 1)
        path = Path(__file__).with_suffix(".json")
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
