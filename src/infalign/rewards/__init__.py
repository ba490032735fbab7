"""Text to real numbers, higher is better: classifiers, your own functions, the embedded rewards.

Anything with a `name` that maps prompts and lists of responses to an array of the same shape is a
reward; see :class:`infalign.protocols.Reward`. Those here score every distinct text once.
Importing this package loads nothing: each name is loaded when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infalign.rewards.classifier import ClassifierReward
    from infalign.rewards.embedded import (
        HeadReward,
        VaderReward,
        gold_reward,
        review_text,
        training_reward,
    )
    from infalign.rewards.function import FunctionReward
    from infalign.rewards.heads import LinearHead
    from infalign.rewards.scoring import PairScores

__all__ = [
    "ClassifierReward",
    "FunctionReward",
    "HeadReward",
    "LinearHead",
    "PairScores",
    "VaderReward",
    "gold_reward",
    "review_text",
    "training_reward",
]

_ROOMS = {
    "classifier": "ClassifierReward",
    "embedded": "HeadReward VaderReward gold_reward review_text training_reward",
    "function": "FunctionReward",
    "heads": "LinearHead",
    "scoring": "PairScores",
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
