"""One phase each in a process of its own, so that peak memory is that phase's.

python benchmarks/store/phases.py PHASE FOLDER PROMPTS K CHUNK   prints its numbers as JSON
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute  # else the first call pays for it
from made import SEED, Numbers, Said, made_prompts

from infalign.integrations.freezing import freeze
from infalign.integrations.frozen import FrozenReward
from infalign.rollouts import RolloutStore, chunks, collect, draw, score

pa.set_cpu_count(1)
NEW = 64
"""Prompts appended to a full store, in chunks of one."""


def peak() -> float:
    """MiB that this process has had resident at most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def timed(work) -> tuple[dict[str, float], object]:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    took = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}
    return took, result


def write(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """Collect and score everything, each chunk a shard and each shard two fsyncs."""
    asked = made_prompts(prompts)
    store = RolloutStore.open(path, Numbers(), SEED)
    rollouts, _ = timed(lambda: collect(Numbers(), asked, k, store, chunk=chunk))
    rewards, _ = timed(lambda: score(store, Said(), asked, chunk=chunk))
    size = sum(file.stat().st_size for file in path.rglob("*.parquet"))
    return {
        "rollouts": rollouts,
        "rewards": rewards,
        "shards": len(store.index.shards),
        "bytes": size,
        "peak_mib": peak(),
    }


def evict(path: Path) -> None:
    """Ask the system to forget the files' pages, so that they come from the disk."""
    for file in path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def open_cold(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """First opening after the files were forgotten."""
    evict(path)
    before = peak()
    took, store = timed(lambda: RolloutStore.existing(path))
    return took | {"prompts": len(store.index.ids), "peak_mib": peak(), "imports_mib": before}


def open_unverified(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """The same without what was remembered: every byte is read and checked."""
    cache = path / "index.cache"
    kept = cache.read_bytes() if cache.exists() else b""
    cache.unlink(missing_ok=True)
    try:
        return open_cold(path, prompts, k, chunk)
    finally:
        cache.write_bytes(kept)


def resume(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """Run the same again: find that nothing is missing."""
    asked, store = made_prompts(prompts), RolloutStore.existing(path)
    rollouts, _ = timed(lambda: collect(Numbers(), asked, k, store, chunk=chunk))
    rewards, _ = timed(lambda: score(store, Said(), asked, chunk=chunk))
    return {"rollouts": rollouts, "rewards": rewards, "peak_mib": peak()}


def append(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """Add shards of one prompt to the full store."""
    store, times = RolloutStore.existing(path), []
    with store.writing():
        for part in chunks(store, made_prompts(prompts + NEW)[prompts:], k, 1):
            responses = draw(Numbers(), part, SEED)
            took, _ = timed(lambda p=part, r=responses: store.add_rollouts(p.prompts, p.samples, r))
            times.append(took["s"])
    for file in (path / "rollouts").glob("*.parquet"):  # as it was
        if file.name in {Path(name).name for name in store.index.shards[-NEW:]}:
            file.unlink()
    return {"median_ms": 1e3 * statistics.median(times), "shards": len(times), "peak_mib": peak()}


def stream(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """Read all rewards, 1024 prompts at a time."""
    before, store = peak(), RolloutStore.existing(path)
    opened = peak()
    took, rows = timed(lambda: sum(r.size for _, r in store.reward_batches("said", k)))
    return took | {"rows": rows, "imports_mib": before, "open_mib": opened, "peak_mib": peak()}


def export(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """Freeze the rewards for engines (all of them in memory at once: eight bytes each)."""
    asked, store = made_prompts(prompts), RolloutStore.existing(path)
    read, rewards = timed(lambda: store.rewards("said", asked, k))
    written, _ = timed(
        lambda: freeze(
            path.with_name(path.name + "-frozen"),
            prompt_ids=[prompt.id for prompt in asked],
            prompts=[prompt.text for prompt in asked],
            reference_rewards=rewards,
            rank_means=np.linspace(0, 1, k + 1),
            facts={
                "k": k, "beta": 0.1, "transform": "identity", "procedure": "none",
                "policy": "numbers", "reward": {"name": "said"}, "end_marks": ["</s>"],
                "sampling": {"temperature": 1.0, "max_new_tokens": 128, "stop": []},
            },
        )
    )  # fmt: skip
    return {"read": read, "freeze": written, "rows": rewards.size, "peak_mib": peak()}


def calibrate(path: Path, prompts: int, k: int, chunk: int) -> dict:
    """Calibrate ten new rewards of each prompt, from files mapped into memory, in batches."""
    before, batch = peak(), 8192
    frozen = FrozenReward.load(path.with_name(path.name + "-frozen"), verify=False)
    ids, rng = frozen.prompt_ids, np.random.default_rng(SEED)

    def work() -> int:
        count = 0
        for start in range(0, len(ids), batch):
            asked = [i for i in ids[start : start + batch] for _ in range(10)]
            count += len(frozen.calibrate(asked, rng.normal(size=len(asked))).quantiles)
        return count

    took, count = timed(work)
    return took | {"rewards": count, "imports_mib": before, "peak_mib": peak()}


PHASES = {
    phase.__name__: phase
    for phase in (
        write, open_cold, open_unverified, resume, append, stream, export, calibrate,
    )
}  # fmt: skip

if __name__ == "__main__":
    name, folder, *sizes = sys.argv[1:]
    print(json.dumps(PHASES[name](Path(folder), *map(int, sizes))))
