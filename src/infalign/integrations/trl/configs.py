"""RLOO and GRPO configurations that lead where the theory says, and refusal of those that do not.

The objective is E[Φ] − β·KL(π‖π_ref), the KL summed over the response. RLOO takes β·log(π/π_ref)
from Φ, then a leave-one-out baseline: its optimum is the tilt π_ref·exp(Φ/β)/Z at any length. GRPO
keeps the KL in the loss, which changes two things. Its baseline includes the response itself,
so that Φ is pulled on by (G − 1)/G only, while the KL is not: β is scaled alike here, so that the
ratio is right. And a token is charged for its own divergence, not for that of what it leads to: its
optimum is the tilt for responses of one token, and near it for longer ones.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infalign.integrations.frozen import FrozenReward
from infalign.integrations.trl.rules import GENERATIONS, Law, needed_options, rules_of

if TYPE_CHECKING:
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.rloo_config import RLOOConfig

__all__ = ["check_config", "grpo_config", "import_trl", "rloo_config"]


def check_config(
    config: "RLOOConfig | GRPOConfig", frozen: "FrozenReward | Law | str | Path"
) -> None:
    """Refuse a configuration that would train towards another optimum.

    Args:
        config: of TRL's RLOOTrainer or GRPOTrainer.
        frozen: the reward it will train on, or its folder, or its law.

    Raises:
        ValueError: naming every option that stands in the way, its value, the one needed, and why.
        TypeError: a configuration of another trainer.
    """
    trl = import_trl()
    if not isinstance(config, trl.RLOOConfig | trl.GRPOConfig):
        raise TypeError(
            f"config is a {type(config).__name__}; an RLOOConfig or a GRPOConfig is needed. Other "
            "trainers of TRL maximise something else."
        )
    law = Law.of(frozen)
    trainer = "rloo" if isinstance(config, trl.RLOOConfig) else "grpo"
    rules = rules_of(trainer, law, config.num_generations or GENERATIONS)
    found = [(rule, getattr(config, rule.option)) for rule in rules if hasattr(config, rule.option)]
    complaints = [line for rule, value in found if (line := rule.complaint(value))]
    reused = (config.steps_per_generation or 1) > config.gradient_accumulation_steps
    if trainer == "grpo" and reused:
        complaints.append(
            f"steps_per_generation is {config.steps_per_generation}; at most "
            f"gradient_accumulation_steps = {config.gradient_accumulation_steps} is needed: later "
            "updates would clip advantages that do not vanish at the optimum."
        )
    if complaints:
        raise ValueError("\n".join(complaints))
    if trainer == "grpo" and law.max_new_tokens > 1:
        warnings.warn(
            "GRPO charges a token for its own divergence only, so with responses of up to "
            f"{law.max_new_tokens} tokens its optimum is near the tilt that predictions are about, "
            "not at it; RLOO has no such limit.",
            stacklevel=2,
        )


def rloo_config(frozen: "FrozenReward | Law | str | Path", **options: Any) -> "RLOOConfig":
    """An RLOOConfig whose optimum is π_ref·exp(Φ/β)/Z. The faithful choice.

    Args:
        frozen: the reward it will train on, or its folder, or its law.
        options: all others of RLOOConfig.

    Raises:
        ValueError: an option that would lead elsewhere; see :func:`check_config`.
    """
    return _made("rloo", frozen, options)


def grpo_config(frozen: "FrozenReward | Law | str | Path", **options: Any) -> "GRPOConfig":
    """A GRPOConfig that comes as near as GRPO can; see the module's docstring.

    Args:
        frozen: the reward it will train on, or its folder, or its law.
        options: all others of GRPOConfig.

    Raises:
        ValueError: an option that would lead elsewhere; see :func:`check_config`.
    """
    return _made("grpo", frozen, options)


def _made(trainer: str, frozen: "FrozenReward | Law | str | Path", given: Mapping[str, Any]) -> Any:
    trl, law = import_trl(), Law.of(frozen)
    kind = trl.RLOOConfig if trainer == "rloo" else trl.GRPOConfig
    needed = needed_options(trainer, law, int(given.get("num_generations", GENERATIONS)))
    known = {field.name for field in dataclasses.fields(kind)}
    config = kind(**{name: v for name, v in needed.items() if name in known} | dict(given))
    check_config(config, law)
    return config


def import_trl() -> Any:
    """The library.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import trl
    except ImportError as error:
        raise ImportError(
            "training with TRL needs the library trl; install it: pip install 'infalign[trl]'."
        ) from error
    return trl
