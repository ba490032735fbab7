"""The line of the table about scoring on shared prompts."""

from typing import Any

from benchmarks.reading import Row


def rows(result: dict[str, Any]) -> list[Row]:
    """Forward and backward on one reading of the prompt, against one row a response."""
    cases = [
        (f"{case['prompt_tokens']} + {case['response_tokens']}", case["forward and backward"])
        for case in result["dtypes"]["bfloat16"]
    ]
    times = ", ".join(f"{case['shared is times as fast']:.1f} ({at})" for at, case in cases)
    return [
        Row(
            "K = 8 responses on one reading of their prompt, forward and backward, bfloat16",
            f"{times} times as fast (tokens of prompt + response)",
            "one row a response",
        )
    ]
