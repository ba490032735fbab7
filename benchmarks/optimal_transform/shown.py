"""The line of the table about solving for the optimal transform."""

from typing import Any

from benchmarks.reading import Row


def rows(result: dict[str, Any]) -> list[Row]:
    """Residuals of the whole grid, and the reference table's row of best-of-4."""
    families = [result[name] for name in ("BestOfN", "WorstOfN")]
    worst = max(max(family["largest residual"].values()) for family in families)
    laws = sum(family["laws"] for family in families)
    row = next(r for r in result["table"] if (r["procedure"], r["kl"]) == ("best-of-4", 1.0))
    wins = row["win_rate"]
    return [
        Row(
            f"the optimal Φ solved for {laws} pairs of procedure and KL",
            f"largest residual {worst:.0e}; dW\\*/dKL = β to "
            f"{result['envelope']['largest relative error']:.0e}",
            f"a fixed Φ; best-of-4 at KL 1, ideal: {wins['optimal']:.3f} against "
            f"{wins['exp(10)']:.3f} by exp(10u) and {wins['identity']:.3f} by calibration alone",
            worst < 1e-8,
        )
    ]
