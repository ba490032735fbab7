"""Measures the store and calibration at scale; writes result.json.

python benchmarks/store/run.py [--smoke] [--prompts 100000] [--repeats 5] [--folder /tmp/store]
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from made import SEED
from scipy.stats import percentileofscore

from infalign.integrations.frozen import FrozenReward
from infalign.quantile.ranks import count_ranks, quantiles

HERE = Path(__file__).parent


def main() -> None:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds; writes nothing")
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="kept; a store already there is used again")
    parser.add_argument("--output", type=Path, default=HERE / "result.json")
    asked = parser.parse_args()
    if asked.smoke:
        asked.prompts, asked.k, asked.chunk, asked.repeats = 200, 20, 8, 1
    with tempfile.TemporaryDirectory() as scratch:
        result = measured(asked, asked.folder or Path(scratch))
    print(json.dumps(result, indent=2))
    if not asked.smoke:
        asked.output.write_text(json.dumps(result, indent=2) + "\n")


def measured(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All numbers of one run."""
    result: dict[str, Any] = {"setting": setting(asked), "store": {}}
    tenth = (asked.prompts // 10, asked.k), (asked.prompts, asked.k // 10)
    for prompts, k in (*(() if asked.smoke else tenth), (asked.prompts, asked.k)):
        path = folder / f"store-{prompts}-{k}"
        result["store"][f"{prompts} x {k}"] = sizes = {}
        for phase in ("write", "resume", "open_cold", "open_unverified", "append", "stream",
                      "export", "calibrate"):  # fmt: skip
            if phase == "write" and path.exists():
                continue
            sizes[phase] = in_process(phase, path, prompts, k, asked.chunk)
            print(prompts, k, phase, sizes[phase], file=sys.stderr, flush=True)
    frozen = FrozenReward.load(path.with_name(path.name + "-frozen"))
    result["calibration"] = compared(frozen, asked.repeats, asked.smoke)
    result["one reward at a time, microseconds"] = one_at_a_time(frozen, asked.smoke)
    return result


def setting(asked: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    packages = ("numpy", "pyarrow", "pandas", "scipy")
    return {
        "prompts": asked.prompts, "k": asked.k, "chunk": asked.chunk, "seed": SEED,
        "python": platform.python_version(), "machine": platform.machine(),
        "processors": os.cpu_count(), "load before": os.getloadavg()[0],
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }  # fmt: skip


def in_process(phase: str, *arguments: object) -> dict[str, Any]:
    """A phase in a fresh process."""
    command = [sys.executable, str(HERE / "phases.py"), phase, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{phase} failed: {done.stderr}")
    return json.loads(done.stdout)


def compared(frozen: FrozenReward, repeats: int, smoke: bool) -> dict[str, Any]:
    """Ours, scipy's and pandas' quantiles of the same rewards, in turn, in processor time."""
    reference = np.asarray(frozen.reference_rewards)
    prompts, k, new = *reference.shape, 10
    some = min(prompts, 200 if smoke else 5000)  # for scipy and pandas, whose time is per reward
    rng = np.random.default_rng(SEED)
    found: dict[str, Any] = {"new rewards": prompts * new, "of which scipy and pandas": some * new}
    for kind, digits in (("continuous", None), ("tied", 1)):
        stored, values = reference, rng.normal(size=(prompts, new))
        if digits is not None:
            stored, values = np.sort(reference.round(digits)), values.round(digits)
        rows = rng.permutation(np.repeat(np.arange(prompts), new))
        shuffled = values.ravel()[:, None]
        frame, of_new = framed(stored[:some], values[:some])
        methods: dict[str, tuple[int, Callable[[], np.ndarray]]] = {
            "ours": (values.size, lambda s=stored, r=rows, v=shuffled: ours(s, r, v)),
            "scipy": (some * new, lambda s=stored, v=values: by_scipy(s[:some], v[:some])),
            "pandas": (some * new, lambda f=frame, n=of_new: by_pandas(f, n, k)),
        }
        times: dict[str, list[float]] = {name: [] for name in methods}
        for _ in range(repeats):
            for name, (count, work) in methods.items():
                start = time.process_time()
                work()
                times[name].append((time.process_time() - start) / count)
        check = ours(stored, np.repeat(np.arange(some), new), values[:some].reshape(-1, 1))
        for other in (by_scipy(stored[:some], values[:some]), by_pandas(frame, of_new, k)):
            np.testing.assert_allclose(check, other, rtol=0, atol=1e-12)
        rate = {name: 1 / statistics.median(t) for name, t in times.items()}
        pairs = zip(times["ours"], times["scipy"], times["pandas"], strict=True)
        ratio = [min(scipy, pandas) / mine for mine, scipy, pandas in pairs]
        found[kind] = {
            "rewards per second": rate,
            "times the better of both": statistics.median(ratio),
            "least and most": [min(ratio), max(ratio)],
        }
    return found


def ours(stored: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Quantiles of one reward for each of the rows."""
    below, ties = count_ranks(stored, rows, values)
    return quantiles(below, ties, stored.shape[1]).ravel()


def by_scipy(stored: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A call per prompt, for all its new rewards."""
    pairs = zip(stored, values, strict=True)
    return np.concatenate([percentileofscore(a, v, kind="mean") for a, v in pairs]) / 100


def framed(stored: np.ndarray, values: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Stored and new rewards in one frame, made outside the clock; and which rows are new."""
    prompts, k, new = *stored.shape, values.shape[1]
    both = np.concatenate([stored, values], axis=1)
    frame = pd.DataFrame({"prompt": np.repeat(np.arange(prompts), k + new), "reward": both.ravel()})
    return frame, np.tile(np.arange(k + new) >= k, prompts)


def by_pandas(frame: pd.DataFrame, of_new: np.ndarray, k: int) -> np.ndarray:
    """Rank among stored and new, less the rank among the new: below + ties/2."""
    among_all = frame.groupby("prompt")["reward"].rank().to_numpy()[of_new]
    among_new = frame[of_new].groupby("prompt")["reward"].rank().to_numpy()
    return (among_all - among_new) / k


def one_at_a_time(frozen: FrozenReward, smoke: bool) -> dict[str, float | str]:
    """Median time of one reward: alone, and inside each engine's adapter that can be imported.

    The adapters are asked with a reward that costs nothing, so that what is left is theirs.
    """
    count = 200 if smoke else 20_000
    loaded = FrozenReward.load(
        frozen.folder, lambda prompts, responses: np.zeros((len(prompts), 1)), verify=False
    )
    ids = np.random.default_rng(SEED).choice(loaded.prompt_ids, count).tolist()
    found: dict[str, float | str] = {}
    for name, adapter in list(ADAPTERS.items())[: 3 if smoke else None]:  # the rest load torch
        try:
            ask = adapter(loaded)
        except ImportError as error:
            found[name] = f"not measured: {error}"
            continue
        times = []
        for prompt_id in [ids[0], *ids]:
            start = time.perf_counter()
            ask(prompt_id)
            times.append(time.perf_counter() - start)
        found[name] = 1e6 * statistics.median(times[1:])
    return found


def frozen_calibrate(frozen: FrozenReward) -> Callable[[str], Any]:
    return lambda prompt_id: frozen.calibrate([prompt_id], [0.1])


def frozen_score(frozen: FrozenReward) -> Callable[[str], Any]:
    return lambda prompt_id: frozen.score([prompt_id], ["an answer"])


def verl(frozen: FrozenReward) -> Callable[[str], Any]:
    from infalign.integrations.verl import ComputeScore

    compute = ComputeScore(frozen)
    return lambda prompt_id: compute("infalign", "an answer", "", {"prompt_id": prompt_id})


def openrlhf(frozen: FrozenReward) -> Callable[[str], Any]:
    import torch  # noqa: F401  # the adapter imports it when asked

    from infalign.integrations.openrlhf import RewardFunc

    compute = RewardFunc(frozen)
    return lambda prompt_id: compute(["question an answer"], ["question"], [prompt_id])


def trl(frozen: FrozenReward) -> Callable[[str], Any]:
    from infalign.integrations.trl import CalibratedReward

    compute = CalibratedReward(frozen)
    return lambda prompt_id: compute(
        prompts=["question"], completions=["an answer"], prompt_id=[prompt_id]
    )


ADAPTERS = {
    "FrozenReward.calibrate": frozen_calibrate,
    "FrozenReward.score": frozen_score,
    "verl": verl,
    "openrlhf": openrlhf,
    "trl": trl,
}

if __name__ == "__main__":
    main()
