"""Procedures on text by name: what the command line and the server speak."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from infalign.decoding.blockwise import BlockwiseBestOfN
from infalign.decoding.mcmc import mcmc, qalign
from infalign.decoding.search import BlockSearch, TreeSearch
from infalign.decoding.selection import Selection
from infalign.decoding.text_procedure import TextProcedure
from infalign.decoding.voting import MajorityVote, MinimumBayesRisk, WeightedVote
from infalign.quantile.names import PROCEDURE_MAKERS, member_from_name, member_settings
from infalign.quantile.procedures import Procedure

__all__ = ["TEXT_PROCEDURE_NAMES", "text_procedure_from_name", "text_procedure_settings"]

_STOPPING = {"at_once": int, "minimum": float, "maximum": float}
"""Settings of :class:`.Selection` beside the procedure's own."""


def _selecting(make: Callable[..., Procedure]) -> Callable[..., TextProcedure]:
    """What makes a procedure on [0,1], making it one on text."""

    def made(**settings: Any) -> TextProcedure:
        stopping = {name: settings.pop(name) for name in _STOPPING if name in settings}
        return Selection(make(**settings), **stopping)

    own = inspect.signature(make)
    further = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _STOPPING.items()
    ]
    # What names are parsed by: the settings of both.
    setattr(made, "__signature__", own.replace(parameters=[*own.parameters.values(), *further]))  # noqa: B010
    return made


def _block_search(
    width: int = 4,
    expand: int = 4,
    block: int | None = 16,
    *,
    beta: float | None = None,
    rollouts: int = 0,
    calibrated: bool = False,
) -> BlockSearch:
    judged: dict[str, Any] = {"rollouts": rollouts, "calibrated": bool(calibrated)}
    return BlockSearch(width, expand, beta, block=block, **judged)


def _tree_search(
    expansions: int = 16,
    expand: int = 4,
    block: int | None = 16,
    *,
    rollouts: int = 0,
    calibrated: bool = False,
) -> TreeSearch:
    judged: dict[str, Any] = {"rollouts": rollouts, "calibrated": bool(calibrated)}
    return TreeSearch(expansions, expand, block=block, **judged)


_MAKERS: Mapping[str, Callable[..., TextProcedure]] = {
    **{name: _selecting(make) for name, make in PROCEDURE_MAKERS.items()},
    "blockwise_best_of_n": BlockwiseBestOfN,
    "majority_vote": MajorityVote,
    "weighted_vote": WeightedVote,
    "minimum_bayes_risk": MinimumBayesRisk,
    "mcmc": mcmc,
    "qalign": qalign,
    "block_search": _block_search,
    "tree_search": _tree_search,
}
TEXT_PROCEDURE_NAMES = tuple(_MAKERS)
"""Names `text_procedure_from_name` knows."""


def text_procedure_from_name(name: str, **settings: Any) -> TextProcedure:
    """The procedure on text of that name, e.g. ``best_of_n`` with n = 8.

    Names are read as :func:`infalign.quantile.names.procedure_from_name` reads them: ``best-of-8``
    is ``best_of_n`` with n = 8, and settings may stand in brackets, by place or by name.

    Args:
        name: one of `TEXT_PROCEDURE_NAMES`.
        **settings: its fields; see :func:`text_procedure_settings`.

    Raises:
        ValueError: on an unknown name or setting, with the nearest right one.

    Example:
        >>> text_procedure_from_name("best-of-8").name
        'best-of-8'
        >>> text_procedure_from_name("qalign(0.5, steps=32)").name
        'mcmc, 32 steps, reward/0.5'
        >>> text_procedure_from_name("majority_vote(16, extract=last_number)").most
        16
    """
    return member_from_name("procedure", _MAKERS, name, settings)


def text_procedure_settings(name: str) -> list[str]:
    """Names of the settings that a procedure takes, in the order they may stand in brackets.

    Example:
        >>> text_procedure_settings("weighted_vote")
        ['n', 'beta', 'extract']
    """
    return member_settings(_MAKERS[name])
