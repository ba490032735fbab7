"""Seconds and memory of a training step, ours beside TRL's; writes result.json.

python -m benchmarks.cost.run [--smoke] [--output FILE]

Each group of contenders is kept under runs/bench/cost when it is done; what is interrupted goes on
with the next group by the same command.
"""

# ruff: noqa: E402
import os

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded
os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TQDM_DISABLE": "1"}

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import pickle
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arena.program import program
from benchmarks.arena.results import about, save
from benchmarks.arena.runs import FOLDER
from benchmarks.cost.cases import Case, problem_of
from benchmarks.cost.plan import CASES, PLAN, SMOKE
from benchmarks.cost.turns import at_once, draw_answers, in_turn
from infalign.rollouts.shards import write_atomically

HERE = Path(__file__).parent
SEED = 0
SAME = (("online", "trl-rloo"), ("dpo", "trl-dpo"), ("dpo", "trl-dpo-cached"))
"""Ours and TRL's that take the same step: their gradients must agree."""
EXACT = {"chat": "chat, float32"}
"""Cases on the same tokens: in bfloat16, and in float32 to compare its gradients with."""
THIN = 25
"""Of gradients every so many-th entry is kept."""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost.run", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, seconds, no timing")
    parser.add_argument("--output", type=Path, help="where the result goes")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("trl") is None:
        parser.error("TRL is not installed, and it is what is compared with: pip install '.[trl]'.")
    if not options.smoke:
        result = _full(options.output or HERE / "result.json")
    else:
        result = _smoke()
        if options.output is not None:
            save(options.output, result)
    print(json.dumps(result, indent=1))
    return result


def _smoke() -> dict[str, Any]:
    """Whether contenders do the same work, on a tiny model; not what it costs."""
    given = draw_answers(SMOKE, tiny=True)
    (names,) = SMOKE.groups
    with contextlib.redirect_stdout(sys.stderr):  # TRL prints empty lines
        found = at_once(names, SMOKE, given, tiny=True)
    tokens = {name: facts["tokens"] for name, facts in found.items()}
    pairs = [*SAME, ("dpo", "online")]  # the last must differ
    gradients = {name: facts["gradient"] for name, facts in found.items()}
    return {
        "about": about(seed=SEED, mode="smoke"),
        "cases": {
            SMOKE.name: {
                "tokens": tokens,
                "beta": problem_of(given).beta,
                "gradients": _agreement(gradients, pairs),
            }
        },
    }


def _full(output: Path) -> dict[str, Any]:
    """Every group of the plan; writes what there is after each."""
    kept: dict[str, list[dict[str, Any]]] = {}
    result: dict[str, Any] = {}
    for done, (i, at) in enumerate(PLAN, 1):
        case = CASES[i]
        kept.setdefault(case.name, []).append(_group(case, case.groups[at]))
        cases = {one.name: _case(one, kept) for one in CASES if one.name in kept}
        facts = about(seed=SEED, mode="full", threads=1, groups=f"{done} of {len(PLAN)}")
        result = {"about": facts, "cases": cases}
        save(output, result)
    return result


def _group(case: Case, names: Sequence[str]) -> dict[str, Any]:
    """What a group measured, taken from disk where it is known."""
    settings = json.dumps([dataclasses.asdict(case) | {"groups": names, "name": ""}, _sources()])
    key = hashlib.sha256(settings.encode()).hexdigest()[:16]
    path = FOLDER / "cost" / f"{case.name.replace(', ', '-')}-{names[0]}-{key}.pkl"
    if not path.exists():
        found = in_turn(names, case, _given(case), _say)
        for facts in found.values():
            facts["gradient"] = facts["gradient"][::THIN]
            facts["load"] = os.getloadavg()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, pickle.dumps(found), path.parent)
    return pickle.loads(path.read_bytes())


def _given(case: Case) -> dict[str, Any]:
    """Prompts and answers; the same for a case in another dtype."""
    drawn = dataclasses.replace(case, dtype="bfloat16")
    size = f"{case.prompts}x{case.prompt_tokens}-{case.k}x{case.cap}"
    path = FOLDER / "cost" / f"answers-{size}.json"
    if not path.exists():
        _say(f"{case.name}: drawing the reference's answers")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(draw_answers(drawn, tiny=False))
        write_atomically(path, text.encode(), path.parent)
    return json.loads(path.read_text("utf-8"))


def _sources() -> str:
    """Of what is measured: what these files say decides whether a kept measurement still holds."""
    root = HERE.parents[1] / "src" / "infalign"
    files = [HERE / f"{name}.py" for name in ("cases", "ours", "theirs", "turns")]
    files += sorted(root.glob("policies/*.py")) + sorted(root.glob("training/*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _case(case: Case, kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What is reported of a case: each contender, and pairs of them that took turns."""
    groups, ratios = kept[case.name], {}
    for group in groups:
        for own, other in itertools.permutations(group, 2):
            if not own.startswith("trl"):
                ratios.setdefault(f"{other} / {own}", _ratio(group[other], group[own]))
    names = dict.fromkeys(name for group in groups for name in group)
    result: dict[str, Any] = {"case": dataclasses.asdict(case), "contenders": {}, "ratios": ratios}
    for name in names:
        result["contenders"][name] = _contender([group[name] for group in groups if name in group])
    gradients = _gradients(groups)
    result["gradients"] = _agreement(gradients, SAME)
    exact = _gradients(kept.get(EXACT.get(case.name, ""), ()))
    if both := [name for name in gradients if name in exact]:
        found = {name: _cosine(gradients[name], exact[name]) for name in both}
        result["cosine with float32"] = found
    return result


def _gradients(groups: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: facts["gradient"] for group in groups for name, facts in group.items()}


def _contender(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over all of its turns, in milliseconds and MB, per token trained on too."""
    steps = [step for facts in groups for step in facts["steps"]]
    tokens = statistics.median(count for _, count in steps)
    rise = max(facts["peak_mb"] - facts["loaded_mb"] for facts in groups)
    return {
        "tokens": tokens,
        "seconds": [round(seconds, 4) for seconds, _ in steps],
        "ms per token": round(statistics.median(1e3 * s / count for s, count in steps), 3),
        "memory rise, MB": round(rise, 1),
        "memory rise, MB per token": round(rise / tokens, 3),
        "memory with the model, MB": round(max(facts["peak_mb"] for facts in groups), 1),
        "load of the machine": [round(facts["load"], 1) for facts in groups],
    }


def _ratio(other: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """How many times what `own` needs `other` needs, per token: within each turn, and memory."""
    pairs = zip(other["steps"], own["steps"], strict=True)
    times = [(a / m) / (b / n) for (a, m), (b, n) in pairs]
    rises = [facts["peak_mb"] - facts["loaded_mb"] for facts in (other, own)]
    return {
        "time": round(statistics.median(times), 3),
        "least": round(min(times), 3),
        "most": round(max(times), 3),
        "turns": len(times),
        "memory": round(rises[0] / rises[1], 3),
    }


def _agreement(
    gradients: Mapping[str, np.ndarray], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Cosine and ratio of norms of the first step's gradients."""
    return {
        f"{b} and {a}": {
            "cosine": _cosine(gradients[a], gradients[b]),
            "norms": float(np.linalg.norm(gradients[b]) / np.linalg.norm(gradients[a])),
        }
        for a, b in pairs
        if a in gradients and b in gradients
    }


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    program(main)
