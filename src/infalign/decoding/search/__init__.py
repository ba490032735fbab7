"""Search over beginnings of responses, and tokens steered by what beginnings are worth.

:class:`BlockSearch` keeps several beginnings side by side; :class:`TreeSearch` goes on from
whichever is the most promising. :func:`controlled` makes a policy of a policy and a value.
Values are exact on a table of tokens (:class:`TabularValue`), the reward itself
(:class:`RewardValue`), or a head on a language model's states, fitted to stored rollouts
(:func:`fit_value_head`, which needs torch and loads it when called).
"""

from infalign.decoding.search.block_search import BlockSearch
from infalign.decoding.search.controlled import Controlled, controlled
from infalign.decoding.search.tree_search import TreeSearch
from infalign.decoding.search.values import RewardValue, TabularValue, Value

__all__ = [
    "BlockSearch",
    "Controlled",
    "RewardValue",
    "TabularValue",
    "TreeSearch",
    "Value",
    "controlled",
]
