"""The line of the table about procedures on text."""

from typing import Any

from benchmarks.reading import Row


def rows(result: dict[str, Any]) -> list[Row]:
    """What choosing every few tokens wins for its tokens, by the gold judge."""
    ways = result["reviews"]["ways"]

    def told(name: str) -> str:
        way = ways[name]
        gold = way["gold"]
        tokens = way["budget"]["tokens"]
        return f"{gold['win_rate']:.2f} ± {gold['se']:.2f} for {tokens:.0f} tokens"

    return [
        Row(
            "best of 16 every five tokens, film reviews, gold win rate",
            told("blockwise best-of-N, 5 tokens | best-of-16 every 5 tokens"),
            f"best-of-64 of whole answers, {told('best-of-N | best-of-64')}",
        )
    ]
