"""The lines of the table about the planner's speed."""

import statistics
from typing import Any

from benchmarks.reading import Row


def rows(result: dict[str, Any]) -> list[Row]:
    """Time of a warm solution of best-of-N, against the rivals at equal accuracy."""
    cases = [case for case in result["cases"] if case["procedure"].startswith("best-of-")]
    cases = [case for case in cases if case["procedure"].removeprefix("best-of-").isdigit()]
    ours = [case["median_seconds"]["ours, warm"] for case in cases]
    ratios = [
        case["fixed point, given kl"]["equal_seconds"] / case["median_seconds"]["ours, warm"]
        for case in cases
        if "equal_seconds" in case.get("fixed point, given kl", {})
    ]
    return [
        Row(
            f"an optimum for best-of-N, its curve known ({len(cases)} cases)",
            f"{1e3 * min(ours):.1f} to {1e3 * max(ours):.1f} ms; {statistics.median(ratios):.0f} "
            f"times as fast ({min(ratios):.0f} … {max(ratios):.0f}, {len(ratios)} cases)",
            "a damped fixed point to the same accuracy of 1e-9",
        )
    ]
