"""Measures scoring on shared prompts against one row a response; writes result.json.

python benchmarks/scoring/run.py [--smoke] [--repeats 2]
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from infalign.policies import CausalLM, LoRA
from infalign.protocols import Response, Sampling

FORMS = {"shared": None, "unshared": False}
"""`_packs` of the policy: None lets it find out, False gives each response a row of its own."""


@dataclasses.dataclass(frozen=True)
class Case:
    """P prompts of a length, K responses of a mean length to each, in tokens."""

    prompts: int
    prompt_tokens: int
    k: int
    response_tokens: int


CASES = [
    Case(4, 12, 8, 12),
    Case(2, 12, 8, 40),
    Case(1, 100, 8, 40),
    Case(1, 400, 8, 40),
]
SMOKE = [Case(2, 4, 4, 6), Case(1, 40, 4, 6)]


def inputs(policy: CausalLM, case: Case) -> tuple[list[str], list[list[Response]]]:
    """Prompts of made-up words, and responses of random tokens: nothing but prompts is shared."""
    rng = np.random.default_rng(0)
    ends = min(policy.codec.stop_ids)
    words = [i for i in range(40, len(policy.tokenizer)) if i not in policy.codec.stop_ids]
    texts = []
    for _ in range(case.prompts):
        text = policy.tokenizer.decode(rng.choice(words, 3 * case.prompt_tokens).tolist())
        while len(policy.codec.encode(text)) > case.prompt_tokens and len(text) > 1:
            text = text[: max(1, int(len(text) * 0.97) - 1)]
        texts.append(text)
    longest = min(2 * case.response_tokens, policy.sampling.max_new_tokens)
    lengths = rng.integers(1, longest, (case.prompts, case.k))
    responses = [[Response("", (*rng.choice(words, n).tolist(), ends)) for n in row]
                 for row in lengths]  # fmt: skip
    return texts, responses


def forward(policy: CausalLM, prompts: list[str], responses: list[list[Response]]) -> np.ndarray:
    """Log-probabilities alone."""
    return policy.log_prob(prompts, responses)


def forward_backward(
    policy: CausalLM, prompts: list[str], responses: list[list[Response]]
) -> np.ndarray:
    """The gradient of a weighted sum of log-probabilities, as in a training step."""
    policy.module.zero_grad()
    log_prob = policy.differentiable_log_prob(prompts, responses)
    weights = np.random.default_rng(1).normal(size=log_prob.shape)
    (torch.from_numpy(weights) * log_prob).sum().backward()
    trained = (p.grad for p in policy.module.parameters() if p.requires_grad)
    return torch.cat([g.flatten() for g in trained if g is not None]).numpy()


PASSES: dict[str, Callable[..., np.ndarray]] = {
    "forward": forward,
    "forward and backward": forward_backward,
}


def give_back() -> None:
    """Return freed memory to the system, so that what a pass needs shows as a rise."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def measured(run: Callable[..., np.ndarray], *given: Any) -> tuple[np.ndarray, float, float]:
    """What comes back, processor seconds, and how far resident memory rose, in MB."""
    process, peak, over = psutil.Process(), [0], threading.Event()
    give_back()
    before = process.memory_info().rss

    def watch() -> None:
        while not over.wait(0.004):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    found = run(*given)
    seconds = time.process_time() - start
    over.set()
    watcher.join()
    return found, seconds, max(0.0, (peak[0] - before) / 1e6)


def measure(policy: CausalLM, case: Case, repeats: int) -> dict[str, Any]:
    """Both forms in turn; medians, the ratio within each turn, and how far they agree."""
    prompts, responses = inputs(policy, case)
    facts: dict[str, Any] = dataclasses.asdict(case)
    for name, run in PASSES.items():
        seconds: dict[str, list[float]] = {form: [] for form in FORMS}
        memory: dict[str, list[float]] = {form: [] for form in FORMS}
        found: dict[str, np.ndarray] = {}
        for _ in range(repeats):
            for form, packs in FORMS.items():
                policy._packs = packs
                found[form], spent, rose = measured(run, policy, prompts, responses)
                seconds[form].append(spent)
                memory[form].append(rose)
        pairs = zip(seconds["unshared"], seconds["shared"], strict=True)
        difference = np.linalg.norm(found["shared"] - found["unshared"])
        facts[name] = {
            "shared is times as fast": statistics.median(a / b for a, b in pairs),
            "seconds": {form: statistics.median(times) for form, times in seconds.items()},
            "memory rise, MB": {form: max(rises) for form, rises in memory.items()},
            "relative difference": float(difference / np.linalg.norm(found["unshared"])),
        }
    return facts


def policies(smoke: bool) -> dict[str, CausalLM]:
    """The embedded model in both dtypes; or the tiny one."""
    options: dict[str, Any] = {"lora": LoRA(rank=8), "threads": 1}
    if smoke:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from tiny_model import tiny_model

        tiny = CausalLM(*tiny_model(), Sampling(max_new_tokens=8), dtype="float32", **options)
        return {"float32": moved(tiny)}
    from infalign.assets import asset_folder

    folder, sampling = asset_folder("smollm2-135m-instruct"), Sampling(max_new_tokens=80)
    return {
        dtype: moved(CausalLM.from_pretrained(folder, sampling, dtype=dtype, **options))
        for dtype in ("bfloat16", "float32")
    }


def moved(policy: CausalLM) -> CausalLM:
    """The adapter away from zero, so that both of its halves have a gradient."""
    rng = np.random.default_rng(0)
    for name, parameter in policy.module.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.from_numpy(rng.normal(0, 0.02, tuple(parameter.shape))))
    return policy


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, seconds, no file")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--repeats-float32", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("result.json"))
    chosen = parser.parse_args(arguments)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    result: dict[str, Any] = {
        "settings": {
            "repeats": [chosen.repeats, chosen.repeats_float32],
            "threads": 1,
            "machine": platform.machine(),
        },
        "versions": versions,
        "dtypes": {},
    }
    for dtype, policy in policies(chosen.smoke).items():
        cases = SMOKE if chosen.smoke else CASES
        measure(policy, cases[0], 1)  # code and caches warm
        result["dtypes"][dtype] = []
        for case in cases:
            turns = chosen.repeats if dtype == "bfloat16" else chosen.repeats_float32
            result["dtypes"][dtype].append(measure(policy, case, turns))
            print(json.dumps(result["dtypes"][dtype][-1]), file=sys.stderr, flush=True)
            result["load"] = os.getloadavg()
            if not chosen.smoke:  # what is there stays, should the rest be interrupted
                chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
