"""Text to real numbers, higher is better: classifiers, your own functions, the embedded rewards.

Anything with a `name` that maps prompts and lists of responses to an array of the same shape is a
reward; see :class:`infalign.protocols.Reward`. Those here score every distinct text once.
Importing this package loads no torch.
"""

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
