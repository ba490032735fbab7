"""A procedure in front of any OpenAI-compatible model, as an OpenAI-compatible server.

Clients ask as they always did; each answer is one that a procedure found among what the upstream
model drew, by a reward of ours. Importing this package loads nothing: each name is loaded when it
is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infalign.serving.app import create_app
    from infalign.serving.running import serve
    from infalign.serving.settings import Limits, Recipe, Serving

__all__ = ["Limits", "Recipe", "Serving", "create_app", "serve"]

_ROOM_OF = {
    "Limits": "settings",
    "Recipe": "settings",
    "Serving": "settings",
    "create_app": "app",
    "serve": "running",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
