"""Measures steps per second of a chain: with what it has written kept, without, and by others.

python benchmarks/decoding/speed.py [--smoke] [--quest PYTHON] [--repeats 3] [--dtypes float32]

Ways are run in turn on the same prompts, model and thread; ratios are taken within a turn. With
`--quest`, the interpreter of an environment in which `quest-decoding` is installed.
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}

import argparse
import dataclasses
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rewarding import variety

from infalign.decoding import Decoded, decode
from infalign.decoding.mcmc import mcmc
from infalign.policies import CausalLM
from infalign.prompts import Prompt
from infalign.protocols import Sampling
from infalign.rewards import FunctionReward

HERE = Path(__file__).parent
BETA = 0.1
Told = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is asked: prompts of one kind."""

    name: str
    prompts: tuple[Prompt, ...]
    chains: int
    steps: int


class Forgetful:
    """The same policy, which reads every beginning anew."""

    def __init__(self, policy: CausalLM) -> None:
        self.name, self.sampling, self._policy = policy.name, policy.sampling, policy
        self.continue_from, self.sample = policy.continue_from, policy.sample

    @property
    def fingerprint(self) -> str:
        """Of the policy."""
        return self._policy.fingerprint


def ours(policy: Any, case: Case, seed: int) -> tuple[Told, list[Decoded]]:
    """Our chain: what it took, and all its states."""
    procedure = mcmc(BETA, case.steps, chains=case.chains)
    reward = FunctionReward(_varieties, name="variety")
    wall, processor = time.perf_counter(), time.process_time()
    found = decode(policy, case.prompts, reward, procedure, rng=np.random.default_rng(seed))
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    each = case.chains * case.steps
    accepted = sum(round(one.details["acceptance"] * each) for one in found)
    tokens = sum(one.budget.tokens for one in found)
    told = {"steps": each * len(found), "accepted": accepted, "tokens": tokens}
    return told | {"processor": processor, "wall": wall}, found


def _varieties(prompts: Sequence[str], responses: Sequence[Sequence[str]]) -> list[list[float]]:
    return [[variety(text) for text in row] for row in responses]


def quest(python: str, folder: Path, policy: CausalLM, dtype: str, case: Case, seed: int) -> Told:
    """The published engine's, in its own process; loading and two steps' warm-up left out."""
    contexts = policy.contexts([prompt.text for prompt in case.prompts])
    asked = {
        "folder": str(folder), "dtype": dtype, "tokens": policy.sampling.max_new_tokens,
        "contexts": [list(one) for one in contexts for _ in range(case.chains)], "seed": seed,
        "stops": sorted(policy.stop_ids), "steps": case.steps, "beta": BETA,
    }  # fmt: skip
    run = subprocess.run(
        [python, str(HERE / "quest_chain.py")],
        input=json.dumps(asked), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode:
        raise RuntimeError(f"quest_chain.py failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout)


def per_second(told: Told) -> Told:
    """Steps, accepted steps and new tokens by processor time, and steps by wall time."""
    found = {f"{what} per second": told[what] / told["processor"]
             for what in ("steps", "accepted", "tokens")}  # fmt: skip
    return found | {"steps per wall second": told["steps"] / told["wall"]}


def summary(turns: dict[str, list[Told]]) -> dict[str, Any]:
    """Medians of each way, and of what ours is times as fast, turn by turn, with the range."""
    speeds = {way: [per_second(told) for told in every] for way, every in turns.items()}
    facts: dict[str, Any] = {}
    for way, every in speeds.items():
        facts[way] = {what: statistics.median(one[what] for one in every) for what in every[0]}
        facts[way]["acceptance"] = statistics.median(
            told["accepted"] / told["steps"] for told in turns[way]
        )
        facts[way]["tokens per step"] = statistics.median(
            told["tokens"] / told["steps"] for told in turns[way]
        )
        for what in ("steps per second", "accepted per second", "tokens per second"):
            ratios = [a[what] / b[what] for a, b in zip(speeds["kept"], every, strict=True)]
            facts[way][f"kept, times the {what}"] = [
                statistics.median(ratios), min(ratios), max(ratios)
            ]  # fmt: skip
    return facts


def measure(
    policy: CausalLM, case: Case, repeats: int, rival: Callable[[int], Told] | None
) -> dict[str, Any]:
    """All ways in turn; whether keeping changed a state."""
    turns: dict[str, list[Told]] = {"kept": [], "read anew": []}
    same = []
    few = dataclasses.replace(case, prompts=case.prompts[:1], steps=2)
    for way in (policy, Forgetful(policy)):  # code and caches warm
        ours(way, few, 0)
    for turn in range(repeats):
        kept, states = ours(policy, case, turn)
        anew, others = ours(Forgetful(policy), case, turn)
        turns["kept"].append(kept)
        turns["read anew"].append(anew)
        same.append(
            np.mean([a == b for a, b in zip(_tokens(states), _tokens(others), strict=True)])
        )
        if rival is not None:
            turns.setdefault("quest-decoding", []).append(rival(turn))
        for way, every in turns.items():
            speed = per_second(every[-1])["steps per second"]
            print(f"{case.name}, {way}: {speed:.3f} steps per second", file=sys.stderr, flush=True)
    return {"same states": float(np.mean(same)), "ways": summary(turns)}


def _tokens(found: Sequence[Decoded]) -> list[tuple[int, ...]]:
    return [state.token_ids for one in found for state in one.candidates]


def cases(chosen: argparse.Namespace) -> list[Case]:
    """Openings of film reviews, and the same after a page of others."""
    if chosen.smoke:
        texts = [f"{'a tender story ' * (1 + i % 3)}{i}" for i in range(chosen.prompts)]
        page = "the film is lush " * 4
    else:
        from infalign.assets import embedded_prompts

        texts = embedded_prompts(chosen.prompts, "test")
        page = " ".join(text.rstrip('"') for text in embedded_prompts(24, "train")) + "\n"
    size = (chosen.chains, chosen.steps)
    return [
        Case(name, tuple(Prompt(str(i), before + text) for i, text in enumerate(texts)), *size)
        for name, before in (("openings", ""), ("after a page", page))
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, seconds, no file")
    parser.add_argument("--quest", help="python of an environment with quest-decoding")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--output", type=Path, default=HERE / "speed.json")
    chosen = parser.parse_args(arguments)
    result: dict[str, Any] = {"settings": settings(chosen), "dtypes": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(chosen.smoke, Path(scratch))
        for dtype in ("float32",) if chosen.smoke else chosen.dtypes:
            sampling = Sampling(max_new_tokens=chosen.tokens)
            options: dict[str, Any] = {"dtype": dtype, "threads": 1, "device": "cpu"}
            policy = CausalLM.from_pretrained(folder, sampling, **options)
            result["dtypes"][dtype] = {}
            for case in cases(chosen):
                longest = max(map(len, policy.contexts([one.text for one in case.prompts])))
                rival = None
                if chosen.quest:
                    rival = _rival(chosen.quest, folder, policy, dtype, case)
                found = measure(policy, case, chosen.repeats, rival)
                result["dtypes"][dtype][case.name] = {"prompt tokens at most": longest} | found
                result["load"] = os.getloadavg()
                if not chosen.smoke:  # what is there stays, should the rest be interrupted
                    chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return result


def _rival(
    python: str, folder: Path, policy: CausalLM, dtype: str, case: Case
) -> Callable[[int], Told]:
    return lambda seed: quest(python, folder, policy, dtype, case, seed)


def model_folder(smoke: bool, scratch: Path) -> Path:
    """The embedded model, or a tiny one made here."""
    if smoke:
        sys.path.insert(0, str(HERE.parent))
        from tiny_model import save_tiny_model

        return save_tiny_model(scratch / "tiny")
    from infalign.assets import asset_folder

    return asset_folder("smollm2-135m-instruct")


def settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """What was measured, with what."""
    packages = ("torch", "transformers", "numpy")
    return {
        "prompts": chosen.prompts, "chains": chosen.chains, "steps": chosen.steps, "beta": BETA,
        "max_new_tokens": chosen.tokens, "repeats": chosen.repeats, "threads": 1,
        "temperature": 1.0, **{name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip


if __name__ == "__main__":
    main()
