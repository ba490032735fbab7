"""The line of the table about calibrating against a store."""

from typing import Any

from benchmarks.reading import Row


def rows(result: dict[str, Any]) -> list[Row]:
    """Rewards calibrated per second, continuous and tied."""
    found = []
    for kind, measured in result["calibration"].items():
        if not isinstance(measured, dict):
            continue
        rates = measured["rewards per second"]
        best = max((rate, name) for name, rate in rates.items() if name != "ours")
        low, high = measured["least and most"]
        found.append(
            Row(
                f"calibrating against a store of 10⁷ rewards, {kind}, one core",
                f"{rates['ours'] / 1e6:.1f} million/s, {measured['times the better of both']:.1f} "
                f"times as fast ({low:.1f} … {high:.1f})",
                f"{best[1]}, {best[0] / 1e6:.2f} million/s",
            )
        )
    return found
