"""Many machines: rollouts, rewards and calibration as Ray Data stages over worker processes.

:func:`rollout`, :func:`reward` and :func:`calibrate` are `map_batches` stages whose actors build a
policy, a reward or a frozen reward once and then answer chunk after chunk. This process stays the
one writer of the store. A chunk's random numbers follow from the seed, its prompts and its samples
alone, so the store is the single-process one, shard by shard, whichever worker answers first and
however often one dies.
"""

from infalign.integrations.ray.calibrating import calibrate, rewards_of
from infalign.integrations.ray.cluster import Workers, connect
from infalign.integrations.ray.stages import reward, rollout

__all__ = ["Workers", "calibrate", "connect", "reward", "rewards_of", "rollout"]
