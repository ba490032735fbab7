"""Search over beginnings of responses, and tokens steered by what beginnings are worth.

:class:`BlockSearch` keeps several beginnings side by side; :class:`TreeSearch` goes on from
whichever is the most promising. :func:`controlled` makes a policy of a policy and a value.
Values are exact on a table of tokens (:class:`TabularValue`), the reward itself
(:class:`RewardValue`), or a head on a language model's states, fitted to stored rollouts
(:func:`fit_value_head`, which needs torch).
"""

import importlib
from typing import TYPE_CHECKING, Any

from infalign.decoding.search.block_search import BlockSearch
from infalign.decoding.search.controlled import Controlled, controlled
from infalign.decoding.search.tree_search import TreeSearch
from infalign.decoding.search.value_head import HeadValue, ValueHead
from infalign.decoding.search.values import RewardValue, TabularValue, Value

if TYPE_CHECKING:
    from infalign.decoding.search.fitting import (
        HeadFit,
        fit_value_head,
        fit_value_head_to_store,
        value_error,
    )

__all__ = [
    "BlockSearch",
    "Controlled",
    "HeadFit",
    "HeadValue",
    "RewardValue",
    "TabularValue",
    "TreeSearch",
    "Value",
    "ValueHead",
    "controlled",
    "fit_value_head",
    "fit_value_head_to_store",
    "value_error",
]


def __getattr__(name: str) -> Any:
    if name not in {"HeadFit", "fit_value_head", "fit_value_head_to_store", "value_error"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        fitting = importlib.import_module(f"{__name__}.fitting")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("infalign"):
            raise
        raise ImportError(
            f"{name} needs the package {error.name!r}, which is not installed: "
            "pip install 'infalign[lm]'"
        ) from error
    return getattr(fitting, name)
