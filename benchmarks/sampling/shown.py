"""The line of the table about sampling."""

from typing import Any

from benchmarks.reading import Row


def rows(result: dict[str, Any]) -> list[Row]:
    """Tokens per processor second against `generate`."""
    found = []
    for dtype, measured in result["dtypes"].items():
        generate = measured["speed"]["generate"]
        ours = measured["speed"]["ours"]["tokens per processor second"]
        found.append(
            Row(
                f"K responses to each prompt drawn from the same law, {dtype}, one core",
                f"{ours:.0f} tokens/s, {generate['ours is times as fast']:.1f} times as fast",
                f"`generate`, {generate['tokens per processor second']:.0f} tokens/s",
            )
        )
    return found
