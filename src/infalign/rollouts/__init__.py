"""prompts × policy → K responses each, in a content-keyed Parquet store.

A store holds what one policy, at one sampling law and one seed, answered. Whatever the answers
depend on is checked before a single one is drawn, and a store of another model or temperature is
refused, because a calibration is only right for the policy whose samples it was made from.

Nothing is ever rewritten. Rollouts and rewards are appended as small Parquet files ("shards"), each
complete or absent, so a run can be killed at any moment; run again, it draws what is missing with
the same random numbers and ends at the same store as a run that was never stopped.
"""

from infalign.rollouts.collecting import Chunk, Progress, chunks, collect, draw
from infalign.rollouts.identity import store_key
from infalign.rollouts.scoring import maker_of, score, texts, unscored, values
from infalign.rollouts.store import RolloutStore

__all__ = [
    "Chunk",
    "Progress",
    "RolloutStore",
    "chunks",
    "collect",
    "draw",
    "maker_of",
    "score",
    "store_key",
    "texts",
    "unscored",
    "values",
]
