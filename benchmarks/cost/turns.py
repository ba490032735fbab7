"""Contenders in processes of their own that take a step each in turn, so that no two run at once.

Seconds are the process's own processor time between two of its steps: what else the machine does
slows both alike. Memory is the process's peak while it trained, over what it held when the model
was loaded.
"""

import contextlib
import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.cost.cases import Case, answered, policy_of, problem_of

__all__ = ["at_once", "draw_answers", "in_turn"]

Facts = dict[str, Any]


def _perform(
    name: str, case: Case, given: Facts, paused: Callable[[float, int], None], *, tiny: bool
) -> Facts:
    """Trains one contender; `paused` gets seconds and tokens of each step. Returns what is left."""
    policy, problem = policy_of(case, tiny=tiny), problem_of(given)
    gradient = _first_gradient(policy.module)
    if name.startswith("trl"):
        from trl import DPOTrainer, RLOOTrainer  # noqa: F401  loaded lazily, so now

        from benchmarks.cost import theirs
    else:
        from benchmarks.cost import ours
    loaded, began = _start_peak(), [time.process_time()]

    def step(tokens: int) -> None:
        paused(time.process_time() - began[0], tokens)
        began[0] = time.process_time()

    try:
        steps = case.turns + 1
        if name.startswith("trl"):
            theirs.run(name, policy, problem, steps, step, lambda: _shake(policy.module))
        else:
            _shake(policy.module)
            ours.run(name, policy, problem, steps, step)
    finally:
        found = gradient()
    return {"gradient": found, "loaded_mb": loaded / 1e6, "peak_mb": _peak() / 1e6}


def _shake(module: Any) -> None:
    """The adapter a little away from nothing, so that π is not π_ref and both halves move."""
    import torch

    rng = np.random.default_rng(0)
    for name, weight in sorted(module.named_parameters()):
        if "lora_B" in name:
            moved = rng.normal(0, 0.002, tuple(weight.shape))
            weight.data.copy_(torch.from_numpy(moved))


def _first_gradient(module: Any) -> Callable[[], np.ndarray]:
    """Watches optimisers for the gradient of the first step; the call ends it and tells."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    found: list[np.ndarray] = []

    def look(*_: Any) -> None:
        if not found:
            grads = (p.grad for _, p in sorted(module.named_parameters()) if p.grad is not None)
            found.append(np.concatenate([g.detach().numpy().ravel() for g in grads]))

    hook = register_optimizer_step_pre_hook(look)

    def end() -> np.ndarray:
        hook.remove()
        return found[0] if found else np.zeros(0)

    return end


def _start_peak() -> int:
    """Begins a new peak where the system can; resident bytes now."""
    gc.collect()
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def _peak() -> int:
    """Most bytes resident since :func:`_start_peak`; elsewhere than on Linux, since the start."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def draw_answers(case: Case, *, tiny: bool) -> Facts:
    """The case's prompts and the reference's answers."""
    return answered(policy_of(case, tiny=tiny), case, tiny=tiny)


def at_once(names: Sequence[str], case: Case, given: Facts, *, tiny: bool) -> dict[str, Facts]:
    """One after another in this process: for what they compute. Seconds are not comparable."""
    found = {}
    for name in names:
        tokens: list[int] = []
        facts = _perform(name, case, given, lambda _, n, to=tokens: to.append(n), tiny=tiny)
        found[name] = {"tokens": tokens, "gradient": facts["gradient"]}
    return found


def in_turn(
    names: Sequence[str], case: Case, given: Facts, say: Callable[[str], None]
) -> dict[str, Facts]:
    """Each in a process of its own, a step at a time, in a new random order in every round.

    Returns:
        Per contender: `steps`, its (seconds, tokens) with the first, which warms up, left out;
        `gradient`, `loaded_mb`, `peak_mb`.
    """
    context, rng = multiprocessing.get_context("spawn"), np.random.default_rng(0)
    players, found = {}, {}
    try:
        for name in names:
            here, there = context.Pipe()
            process = context.Process(target=_play, args=(there, name, case, given), daemon=True)
            process.start()
            there.close()
            players[name] = (here, process)
            found[name] = {"steps": [], "warm": _heard(here, name)}
            say(f"{case.name}: {name} is warm, {found[name]['warm'][0]:.1f} s")
        for turn in range(case.turns):
            for name in rng.permutation(list(names)).tolist():
                players[name][0].send("go")
                found[name]["steps"].append(_heard(players[name][0], name))
                say(f"{case.name}: {name} {turn + 1}, {found[name]['steps'][-1][0]:.2f} s")
        for name in names:
            players[name][0].send("go")
            found[name] |= _heard(players[name][0], name)
    finally:
        for here, process in players.values():
            here.close()
            process.join(10)
            if process.is_alive():
                process.kill()
    return found


def _heard(pipe: Any, name: str) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"{name} ended early; its own message is above.") from None


def _play(pipe: Any, name: str, case: Case, given: Facts) -> None:
    def paused(seconds: float, tokens: int) -> None:
        pipe.send((seconds, tokens))
        pipe.recv()

    pipe.send(_perform(name, case, given, paused, tiny=False))
    pipe.close()
