"""What every claim tells the table and the figures: each folder has a `shown.py` that says it.

`rows(result)` are lines of the table in `benchmarks/README.md`; `draw(result, folder)` writes
the figures there. Both see nothing but `result.json`, so they can be made again at any time.
"""

import dataclasses

__all__ = ["Row"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    claim: str
    """What is claimed, in one clause, with the setting."""
    number: str
    """What was measured, with its error: `+7.3 points (5.9 to 8.7)`."""
    instead: str
    """What a user would otherwise pick, with its number: `raw-reward RL, 0.804`."""
    holds: bool | None = True
    """Whether it was seen; False is a negative result, None neither."""
