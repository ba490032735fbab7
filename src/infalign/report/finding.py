"""The finding in one sentence, computed from the numbers and never nicer than they are.

The headline compares the act's treatment with its baseline at equal KL, on the training reward
and after the act's procedure, with a 95 % interval of the paired difference. Where the interval
covers zero the sentence says that no significant difference was seen.
"""

import dataclasses
import math

import numpy as np

from infalign.report.measured import Checkpoint, Comparison, Difference, Estimate, Frontier
from infalign.report.numbers import interval_points, points, real
from infalign.report.record import Act

__all__ = [
    "find_difference",
    "fraction_of_limit",
    "has_ideal",
    "has_limit",
    "headline",
    "limit_at",
    "limit_of",
    "split_words",
]

split_words = {"train": "training prompts", "held-out": "held-out prompts"}
"""How a split is called in running text."""


def headline(act: Act) -> str:
    """One sentence, or an empty string where the act compares nothing at equal KL."""
    found = [f for split in ("train", "held-out") if (f := _chosen(act, split))]
    if not found:
        return ""
    kls = {real(comparison.kl) for comparison, _ in found}
    same_kl = len(kls) == 1
    opening = f"At an equal KL of {kls.pop()} nats, " if same_kl else "At equal KL, "
    clauses = [_clause(act, c, d, first=i == 0, kl=not same_kl) for i, (c, d) in enumerate(found)]
    return opening + "; ".join(clauses) + "."


def _chosen(act: Act, split: str) -> tuple[Comparison, Difference] | None:
    """The comparison at the target KL, or at the largest common KL without a target."""
    found = [
        (comparison, difference)
        for comparison in act.comparisons
        if comparison.split == split
        and comparison.judge == act.reward
        and comparison.procedure == act.procedure
        and (difference := find_difference(comparison, act.treatment, act.baseline))
    ]
    target = math.inf if act.target_kl is None else act.target_kl
    if math.isinf(target):
        return max(found, key=lambda pair: pair[0].kl, default=None)
    return min(found, key=lambda pair: abs(pair[0].kl - target), default=None)


def find_difference(comparison: Comparison, policy: str, baseline: str) -> Difference | None:
    """The paired difference policy − baseline, turned round if it was recorded the other way."""
    for found in comparison.differences:
        if (found.policy, found.baseline) == (policy, baseline):
            return found
        if (found.policy, found.baseline) == (baseline, policy):
            turned = dataclasses.replace(found.difference, value=-found.difference.value)
            return Difference(policy, baseline, turned)
    return None


def _clause(act: Act, comparison: Comparison, found: Difference, *, first: bool, kl: bool) -> str:
    estimate, ends = found.difference, found.difference.interval()
    place = f"on {split_words[comparison.split]}"
    place += f" (KL {real(comparison.kl)} nats)" if kl else ""
    names = f" between {act.treatment} and {act.baseline}" if first else ""
    win = f" of {act.procedure} win rate" if first else ""
    if ends is None:
        what = f"the difference{names} is {points(estimate.value)} points{win}"
        return f"{place} {what} (no standard error known)"
    if ends[0] <= 0 <= ends[1]:
        error = (
            f"{points(estimate.value)} points{win}, 95\u00a0% interval {interval_points(estimate)}"
        )
        return f"{place} there is no significant difference{names} ({error})"
    verb = "beats" if estimate.value > 0 else "falls behind"
    low, high = (f"{100 * end:.1f}" for end in sorted(map(abs, ends)))
    size = f"{abs(100 * estimate.value):.1f} points{win} (95\u00a0% interval {low} to {high})"
    return f"{place} {act.treatment} {verb} {act.baseline} by {size}"


def limit_at(frontier: Frontier, kl: float) -> float | None:
    """W* at this KL, read off the limit curve; None outside of it.

    Interpolated in √KL, because near zero the curve rises like √KL (its slope is infinite there).
    """
    curve = frontier.limit
    if curve is None or not curve.kls or not curve.kls[0] <= kl <= curve.kls[-1]:
        return None
    return float(np.interp(math.sqrt(kl), np.sqrt(curve.kls), curve.win_rates))


def limit_of(frontier: Frontier, checkpoint: Checkpoint) -> float | None:
    """W* at the checkpoint's own KL: its own record of it, or read off the limit curve."""
    if checkpoint.limit is not None:
        return checkpoint.limit
    return limit_at(frontier, checkpoint.kl.value)


def has_limit(frontier: Frontier) -> bool:
    """Whether the largest win rate is known at any checkpoint; for votes, say, no theory tells."""
    points = [point for measured in frontier.measured for point in measured.checkpoints]
    return any(limit_of(frontier, point) is not None for point in points)


def has_ideal(act: Act) -> bool:
    """Whether anything stands above what was measured: an ideal, a limit or a prediction.

    An act without a main figure is believed to have it, as nothing says otherwise.
    """
    known = [f for f in act.frontiers if f.limit or f.predictions or has_limit(f)]
    return bool(act.ideal or known or not act.frontiers)


def fraction_of_limit(frontier: Frontier, checkpoint: Checkpoint) -> Estimate | None:
    """(W − ½)/(W*(KL) − ½) at the checkpoint's own KL, with the error of W alone.

    None where the limit is unknown or itself ½ (KL = 0), where no policy can win anything.
    """
    limit = limit_of(frontier, checkpoint)
    if limit is None or limit - 0.5 < 1e-6:
        return None
    won, room = checkpoint.win_rate, limit - 0.5
    se = None if won.se is None else won.se / room
    return Estimate((won.value - 0.5) / room, se, won.prompts)
