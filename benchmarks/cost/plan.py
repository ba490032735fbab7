"""Which contenders meet on which batches, and in which order."""

from benchmarks.cost.cases import Case

__all__ = ["CASES", "PLAN", "SMOKE"]

ONLINE = ("online", "online-separate", "trl-rloo")
WHOLE = ("online-sampled", "trl-rloo-sampled")
PAIRS = ("dpo", "dpo-anew", "trl-dpo-cached", "trl-dpo")
OTHERS = ("dpo", "dpo-separate", "fit", "regression", "trl-dpo-checkpointed")
BOTH = ("online", "trl-rloo", "dpo", "trl-dpo-cached")
CASES = (
    Case("chat", 1, 100, 8, 24, "bfloat16", (ONLINE, PAIRS, WHOLE, OTHERS), 2),
    Case("short", 2, 12, 8, 16, "bfloat16", (BOTH, WHOLE)),
    Case("chat, float32", 1, 100, 8, 24, "float32", (BOTH,), 2),
    Case("long", 1, 256, 4, 24, "bfloat16", (BOTH,), 2),
)
"""Batches are small, for machines of two cores."""
PLAN = ((0, 0), (1, 0), (0, 1), (2, 0), (3, 0), (0, 2), (0, 3), (1, 1))
"""(case, group), those that say most first; all groups of a case in their order."""
SMOKE = Case("tiny", 2, 12, 4, 6, "float32", (("online", "trl-rloo", "dpo", "trl-dpo"),), 0)
