"""TRL: the calibrated reward as a reward function, configurations the theory holds for, a solver.

`training_reward` is for the `trl` command line, which takes a dotted path and no arguments: it is
made when it is asked for, of the frozen reward in the folder that `INFALIGN_FROZEN` names.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infalign.integrations.trl.configs import check_config, grpo_config, rloo_config
    from infalign.integrations.trl.export import write_trl
    from infalign.integrations.trl.reward import CalibratedReward
    from infalign.integrations.trl.rules import Law
    from infalign.integrations.trl.sampling import hold_to_law, prompts_for_trl
    from infalign.integrations.trl.solver import TRL

    training_reward: CalibratedReward

__all__ = [
    "TRL",
    "CalibratedReward",
    "Law",
    "check_config",
    "grpo_config",
    "hold_to_law",
    "prompts_for_trl",
    "rloo_config",
    "write_trl",
]  # and `training_reward`, which a star import shall not make

_HOMES = {
    "TRL": "solver",
    "CalibratedReward": "reward",
    "Law": "rules",
    "check_config": "configs",
    "grpo_config": "configs",
    "hold_to_law": "sampling",
    "prompts_for_trl": "sampling",
    "rloo_config": "configs",
    "write_trl": "export",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "training_reward":
        from infalign.integrations.trl.reward import reward_of_environment

        return reward_of_environment()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
