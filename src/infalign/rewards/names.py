"""Rewards by name, as an experiment file or a frozen reward records them."""

from pathlib import Path
from typing import Any

from infalign.rewards.function import FunctionReward

__all__ = ["reward_from_name"]


def reward_from_name(kind: str, *, name: str | None = None, **settings: Any) -> Any:
    """The reward of a kind.

    Args:
        kind: `callable` (with `function`, `module:function`), `classifier` (with `model`, `label`,
            `batch_size`) or `embedded` (with the name `training`, `gold` or `vader`).
        name: of the reward; by default its own.
        settings: the kind's own.

    Raises:
        ValueError: an unknown kind, or one that cannot be made from these settings.
        ImportError: it needs a package that is not installed; the message says which extra.

    Example:
        >>> reward_from_name("callable", function="builtins:len", name="length").name
        'length'
    """
    if kind == "callable":
        return FunctionReward(settings["function"], name)
    if kind == "embedded":
        return _embedded(name or "training")
    if kind != "classifier":
        raise ValueError(f"there is no reward {kind!r}; callable, classifier and embedded are.")
    from infalign.rewards.classifier import ClassifierReward

    model = settings.pop("model")
    return ClassifierReward.from_pretrained(model, name=name or Path(model).name, **settings)


def _embedded(name: str) -> Any:
    from infalign import rewards

    makers = {
        "training": rewards.training_reward,
        "gold": rewards.gold_reward,
        "vader": rewards.VaderReward,
    }
    if name not in makers:
        raise ValueError(f"there is no embedded reward {name!r}; {', '.join(makers)} are.")
    return makers[name]()
