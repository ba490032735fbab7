"""Procedures on text by name: what the command line and the server speak."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from infalign.decoding.selection import Selection
from infalign.decoding.text_procedure import TextProcedure
from infalign.quantile.names import PROCEDURE_MAKERS, member_from_name, member_settings
from infalign.quantile.procedures import Procedure

__all__ = ["TEXT_PROCEDURE_NAMES", "text_procedure_from_name", "text_procedure_settings"]


def _selecting(make: Callable[..., Procedure]) -> Callable[..., TextProcedure]:
    """What makes a procedure on [0,1], making it one on text of the same settings."""

    @functools.wraps(make, updated=())  # its signature, which names the settings, too
    def made(**settings: Any) -> TextProcedure:
        return Selection(make(**settings))

    return made


_MAKERS: Mapping[str, Callable[..., TextProcedure]] = {
    name: _selecting(make) for name, make in PROCEDURE_MAKERS.items()
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
        >>> text_procedure_from_name("rewind_and_repeat(0.9, 8)").most
        8
    """
    return member_from_name("procedure", _MAKERS, name, settings)


def text_procedure_settings(name: str) -> list[str]:
    """Names of the settings that a procedure takes, in the order they may stand in brackets.

    Example:
        >>> text_procedure_settings("soft_best_of_n")
        ['n', 'temperature']
    """
    return member_settings(_MAKERS[name])
