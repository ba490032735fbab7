"""Measures sampling against plain `generate` and `transformers serve`; writes result.json.

python benchmarks/sampling/run.py [--smoke] [--repeats 2] [--prompts 16] [--k 16] [--tokens 32]
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1"}

import argparse
import copy
import importlib.metadata
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from laws import permutation_p
from rivals import answers_of_server, generate, generate_continuously, serving

from infalign.policies import CausalLM
from infalign.policies.generation import generate_chunks
from infalign.policies.refill import generate_refilled
from infalign.protocols import Response, Sampling

Rows = list[list[Response]]
STOP = ('"', "\n")
WARMER = 1.15
"""Temperature of the negative control."""


class Bench:
    """One model in one dtype, and the ways to sample from it.

    Args:
        folder: of the model.
        dtype: of all alike.
        prompts: P.
        k: responses to each.
        tokens: length cap.
        rows: sequences side by side, for all ways alike.
    """

    def __init__(
        self, folder: Path, dtype: str, prompts: Sequence[str], k: int, tokens: int, rows: int
    ) -> None:
        from transformers import AutoModelForCausalLM

        sampling = Sampling(temperature=1.0, max_new_tokens=tokens, stop=STOP)
        options: dict[str, Any] = {"dtype": dtype, "threads": 1, "rows": rows, "device": "cpu"}
        self.policy = CausalLM.from_pretrained(folder, sampling, **options)
        self.prompts, self.k, self.tokens, self.rows = prompts, k, tokens, rows
        kind = getattr(torch, dtype)
        self.plain: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=kind, attn_implementation="sdpa"
        ).eval()
        self.contexts = self.policy.contexts(prompts)
        self.is_stop = torch.zeros(len(self.policy.head.weight), dtype=torch.bool)
        self.is_stop[sorted(self.policy.codec.stop_ids)] = True

    def few(self, prompts: int = 2, k: int = 2) -> "Bench":
        """The same with few prompts."""
        other = copy.copy(self)
        other.prompts, other.contexts, other.k = self.prompts[:prompts], self.contexts[:prompts], k
        return other

    def ours(self, seed: int) -> Rows:
        """As the library samples: prompts read once, rows refilled."""
        return self.policy.sample(self.prompts, self.k, np.random.default_rng(seed))

    def warmer(self, seed: int) -> Rows:
        """Another law, which the test must tell apart."""
        sampling = Sampling(temperature=WARMER, max_new_tokens=self.tokens, stop=STOP)
        other = self.policy.with_sampling(sampling)
        return other.sample(self.prompts, self.k, np.random.default_rng(seed))

    def without_refill(self, seed: int) -> Rows:
        """Prompts read once; rows that are through are dropped, not refilled."""
        law = (self.policy.body, self.policy.head, self.contexts)
        rows = generate_chunks(*law, self._uniforms(seed), 1.0, self.is_stop, self.rows)
        return [[self.policy.codec.response(*answer) for answer in row] for row in rows]

    def without_sharing(self, seed: int) -> Rows:
        """Rows refilled; each sample reads its prompt anew."""
        contexts = [context for context in self.contexts for _ in range(self.k)]
        numbers = torch.from_numpy(self._uniforms(seed)).reshape(len(contexts), 1, -1)
        law = (self.policy.body, self.policy.head, contexts, numbers, 1.0, self.is_stop)
        found = generate_refilled(*law, self.rows)
        assert found is not None
        return self._shaped(
            [self.policy.codec.response(*pair) for pair in zip(*found, strict=True)]
        )

    def plain_generate(self, seed: int) -> Rows:
        """`model.generate(num_return_sequences=K)`, as many prompts a call as fill the rows."""
        stops = sorted(self.policy.codec.stop_ids)
        ids = generate(self.plain, self.contexts, self.k, self.tokens, stops, self.rows, seed)
        return self._shaped([self.policy.codec.response(i, float("nan")) for i in ids])

    def continuous(self, seed: int) -> Rows:
        """`model.generate_batch`: transformers' own continuous batching."""
        stops = sorted(self.policy.codec.stop_ids)
        ids = generate_continuously(self.plain, self.contexts, self.k, self.tokens, stops, seed)
        return self._shaped([self.policy.codec.response(i, float("nan")) for i in ids])

    def log_probs(self, rows: Rows) -> np.ndarray:
        """log π(y|x) of all, by one scorer."""
        return self.policy.log_prob(self.prompts, rows)

    def _uniforms(self, seed: int) -> np.ndarray:
        shape = (len(self.prompts), self.k, self.tokens)
        return np.random.default_rng(seed).random(shape)

    def _shaped(self, flat: list[Response]) -> Rows:
        return [flat[i * self.k : (i + 1) * self.k] for i in range(len(self.prompts))]


WAYS: dict[str, Callable[[Bench, int], Rows]] = {
    "ours": Bench.ours,
    "generate": Bench.plain_generate,
    "without refill": Bench.without_refill,
    "without sharing": Bench.without_sharing,
}


def timed(
    way: Callable[[Bench, int], Rows], bench: Bench, seed: int
) -> tuple[Rows, dict[str, float]]:
    """What comes back, its tokens per second of processor and of wall time."""
    wall, processor = time.perf_counter(), time.process_time()
    rows = way(bench, seed)
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    tokens = sum(len(response.token_ids) for row in rows for response in row)
    return rows, {"processor": tokens / processor, "wall": tokens / wall, "tokens": tokens}


def measure(bench: Bench, repeats: int, ways: Sequence[str], say: Callable[[str], None]) -> dict:
    """All ways in turn, `repeats` times; medians, ratios within each turn, and the law tests."""
    drawn: dict[str, list[Rows]] = {way: [] for way in ways}
    speeds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for turn in range(repeats):
        for place, way in enumerate(ways):
            rows, speed = timed(WAYS[way], bench, 100 * turn + place)
            drawn[way].append(rows)
            speeds[way].append(speed)
            say(f"{way}: {speed['processor']:.0f} tokens per second of processor time")
    drawn["warmer"] = [bench.warmer(77 + turn) for turn in range(repeats)]
    facts = {way: summary(speed) for way, speed in speeds.items()}
    for way in ways:
        facts[way]["ours is times as fast"] = statistics.median(
            a["processor"] / b["processor"]
            for a, b in zip(speeds["ours"], speeds[way], strict=True)
        )
    return {"speed": facts, "law": compare(bench, drawn)}


def summary(speeds: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the turns, and the spread of processor time."""
    found = {f"tokens per {kind} second": statistics.median(s[kind] for s in speeds)
             for kind in ("processor", "wall")}  # fmt: skip
    spread = [s["processor"] for s in speeds]
    return found | {"range": [min(spread), max(spread)], "tokens": [s["tokens"] for s in speeds]}


def compare(bench: Bench, drawn: dict[str, list[Rows]]) -> dict[str, dict[str, float]]:
    """p-values against `generate`, of lengths and of log-probabilities."""
    told = {way: numbers(bench, turns) for way, turns in drawn.items()}
    return {
        way: {
            what: permutation_p(told["generate"][what], told[way][what])
            for what in ("length", "log-probability")
        }
        | {f"mean {what}": float(value.mean()) for what, value in told[way].items()}
        for way in told
    }


def numbers(bench: Bench, turns: list[Rows]) -> dict[str, np.ndarray]:
    """Lengths and log-probabilities: P × turns·K."""
    lengths = [[[len(r.token_ids) for r in row] for row in rows] for rows in turns]
    return {
        "length": np.concatenate(np.array(lengths, dtype=float), axis=1),
        "log-probability": np.concatenate([bench.log_probs(rows) for rows in turns], axis=1),
    }


def measure_continuous(bench: Bench) -> dict[str, float]:
    """Transformers' continuous batching against `generate`, on four prompts: it is slow here."""
    few = bench.few(4, 8)
    ways = {"generate": Bench.plain_generate, "generate_batch": Bench.continuous}
    speeds = {name: timed(way, few, 5)[1]["processor"] for name, way in ways.items()}
    return {f"{way}, tokens per processor second": speed for way, speed in speeds.items()}


def measure_server(bench: Bench, folder: Path, dtype: str, k: int) -> dict[str, Any]:
    """`transformers serve` answers the same prompts, K smaller: it answers one after another."""
    with serving(folder, dtype) as server:
        # As text that the server's tokenizer reads as the tokens the others are conditioned on.
        asked = [bench.policy.codec.written(prompt) for prompt in bench.prompts]
        texts, seconds, processor = answers_of_server(server, asked, k, bench.tokens, STOP)
    codec = bench.policy.codec
    tokens = sum(len(codec.tokenizer(text)["input_ids"]) + 1 for row in texts for text in row)
    mine = bench.ours(999)  # tokens are not told: lengths are compared in characters
    lengths = (
        [[len(r.text.strip()) for r in row] for row in mine],
        [[len(text.strip()) for text in row] for row in texts],
    )
    return {
        "tokens per processor second": tokens / processor,
        "tokens per wall second": tokens / seconds,
        "k": k,
        "p of lengths": permutation_p(*(np.array(x, dtype=float) for x in lengths)),
    }


def prompts_for(smoke: bool, count: int) -> list[str]:
    """Openings of film reviews; for the tiny model, words."""
    if smoke:
        return [f"{'a tender story ' * (1 + i % 3)}{i}" for i in range(count)]
    from infalign.assets import embedded_prompts

    return embedded_prompts(count, "test")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, seconds, no file")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--rows", type=int, default=128, help="sequences side by side")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--continuous", action="store_true", help="and generate_batch")
    parser.add_argument("--server-k", type=int, default=1, help="0 leaves the server out")
    parser.add_argument("--server-only", action="store_true", help="that part of result.json anew")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("result.json"))
    chosen = parser.parse_args(arguments)
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    result: dict[str, Any] = {"settings": settings(chosen), "dtypes": {}}
    if chosen.server_only:
        result = json.loads(chosen.output.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(chosen.smoke, Path(scratch))
        for dtype in ("float32",) if chosen.smoke else chosen.dtypes:
            say(dtype)
            prompts = prompts_for(chosen.smoke, chosen.prompts)
            bench = Bench(folder, dtype, prompts, chosen.k, chosen.tokens, chosen.rows)
            for way in WAYS.values():  # code and caches warm
                way(bench.few(), 0)
            if not chosen.server_only:
                result["dtypes"][dtype] = measure(bench, chosen.repeats, list(WAYS), say)
            if chosen.continuous and dtype == "bfloat16":
                result["dtypes"][dtype]["continuous batching"] = measure_continuous(bench)
            if chosen.server_k and not chosen.smoke:
                served = measure_server(bench, folder, dtype, chosen.server_k)
                result["dtypes"][dtype]["transformers serve"] = served
            result["load"] = os.getloadavg()
            if not chosen.smoke:  # what is there stays, should the rest be interrupted
                chosen.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return result


def model_folder(smoke: bool, scratch: Path) -> Path:
    """The embedded model, or a tiny one made here."""
    if smoke:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from tiny_model import save_tiny_model

        return save_tiny_model(scratch / "tiny")
    from infalign.assets import asset_folder

    return asset_folder("smollm2-135m-instruct")


def settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """What was measured, with what."""
    packages = ("torch", "transformers", "numpy")
    return {
        "prompts": chosen.prompts, "k": chosen.k, "max_new_tokens": chosen.tokens, "stop": STOP,
        "repeats": chosen.repeats, "rows": chosen.rows, "threads": 1, "temperature": 1.0,
        "machine": platform.machine(), "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip


if __name__ == "__main__":
    main()
