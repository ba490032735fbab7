"""Counts that procedures on text take: refused before anything is sampled."""

from infalign.policies.counts import refuse_count
from infalign.quantile.procedures.ranks import refuse_n

__all__ = ["refuse_candidates_count", "refuse_count"]


def refuse_candidates_count(n: int, what: str) -> None:
    """Raise ValueError unless n is a number of candidates that may be asked for."""
    refuse_count(n, "n", what)
    refuse_n(n, what)
