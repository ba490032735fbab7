"""One run, several processes: who writes, who waits, and how a step's prompts are shared out.

`accelerate launch` (or torchrun) starts the same program several times. Every process computes the
same things from the same random numbers except the gradient, of which each takes its share.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import accelerate

__all__ = [
    "joined",
    "leave",
    "refuse_environment",
    "refuse_other_sharding",
    "refuse_settings",
    "refuse_several",
    "same_everywhere",
    "shares",
    "started",
]

_PATIENCE = timedelta(hours=6)
"""How long processes wait for the main one, which samples and asks the reward when it measures."""


def started() -> int:
    """How many processes the launcher says there are; 1 without a launcher.

    Raises:
        ValueError: the launcher's variable is no count.
    """
    said = os.environ.get("WORLD_SIZE", "1")
    if not said.isdecimal() or int(said) < 1:
        raise ValueError(
            f"the environment variable WORLD_SIZE is {said!r}; the number of processes is needed, "
            "at least 1. Launchers set it: unset it where there is none."
        )
    return int(said)


def joined(*, cpu: bool) -> "accelerate.PartialState":
    """This process among those that train with it, all connected.

    Args:
        cpu: stay on the CPU (gloo) whatever else this machine has.

    Raises:
        ValueError: accelerate was given settings under which training would be wrong.
    """
    from accelerate import PartialState

    refuse_environment()
    return PartialState(cpu=cpu, timeout=_PATIENCE) if started() > 1 else PartialState(cpu=cpu)


def refuse_environment() -> None:
    """Refuse accelerate's settings, as its launcher passes them on; see :func:`refuse_settings`."""
    said = {name: value.lower() for name, value in os.environ.items()}
    names = {
        "mixed_precision": "ACCELERATE_MIXED_PRECISION",
        "dynamo_config.dynamo_backend": "ACCELERATE_DYNAMO_BACKEND",
    }
    if said.get("ACCELERATE_USE_FSDP") == "true":
        names |= {
            "fsdp_config.fsdp_version": "FSDP_VERSION",
            "fsdp_config.fsdp_cpu_ram_efficient_loading": "FSDP_CPU_RAM_EFFICIENT_LOADING",
        }
        said = {"FSDP_VERSION": "1", "FSDP_CPU_RAM_EFFICIENT_LOADING": ""} | said
    if said.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        prefix = "ACCELERATE_DEEPSPEED_ZERO3_"
        names |= {
            "deepspeed_config.zero3_init_flag": f"{prefix}INIT",
            "deepspeed_config.zero3_save_16bit_model": f"{prefix}SAVE_16BIT_MODEL",
        }
        said = {f"{prefix}INIT": "true"} | said
    refuse_settings({name: said[key] for name, key in names.items() if key in said})


def refuse_settings(found: Mapping[str, str], source: str = "the accelerate configuration") -> None:
    """Refuse settings of accelerate under which a policy would not score by its own weights.

    Args:
        found: by name in an accelerate configuration, in lower case; what is not there is right.
        source: what says so.

    Raises:
        ValueError: naming the setting, its value, the one needed and why.
    """
    for name, (wanted, why) in _NEEDED.items():
        value = found.get(name, wanted)
        if value != wanted:
            raise ValueError(
                f"{name} is {value or 'left out'} in {source}; {wanted} is needed, because {why}. "
                "The configurations that come with infalign have it."
            )


_LOADS = "every process copies the float32 head from weights that it has loaded itself"
_NEEDED = {
    "mixed_precision": (
        "no",
        "the policy chooses its precision itself, and autocast would round what is float32 on "
        "purpose",
    ),
    "dynamo_config.dynamo_backend": (
        "no",
        "compiled models were not checked, and log π needs more of them than `forward`",
    ),
    "fsdp_config.fsdp_version": ("2", "the older one cannot shard an adapter in place"),
    "fsdp_config.fsdp_cpu_ram_efficient_loading": ("false", _LOADS),
    "deepspeed_config.zero3_init_flag": ("false", _LOADS),
    "deepspeed_config.zero3_save_16bit_model": (
        "false",
        "a checkpoint then is the whole model, and tied embeddings cannot be written",
    ),
}


def refuse_other_sharding(checkpoint: Path) -> None:
    """Refuse to go on from a Trainer's checkpoint whose optimiser these processes cannot read.

    Whole optimisers (one process, DDP) fit any number of processes. Sharded ones do not fit whole
    ones, nor DeepSpeed's another number of processes, and the Trainer might start from none.

    Raises:
        ValueError: the checkpoint was written by another `training.accelerate`, or by another
            number of processes under DeepSpeed.
    """
    then, now = _sharding_of(checkpoint), _sharding()
    if then != now:
        raise ValueError(
            f"{checkpoint} was written under {then}, and this is {now}; the optimiser's state does "
            f"not fit. Go on under {then} (training.accelerate, training.processes), or delete "
            f"{checkpoint.parent} to start training anew."
        )


def _sharding() -> str:
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        return "fsdp"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() != "true":
        return "ddp or one process"
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    return f"zero{stage} with {started()} processes"


def _sharding_of(checkpoint: Path) -> str:
    parts = len(list(checkpoint.glob("global_step*/*zero_pp_rank_*optim_states.pt")))
    if parts:
        stage = 3 if any(checkpoint.glob("global_step*/zero_pp_rank_*model_states.pt")) else 2
        return f"zero{stage} with {parts} processes"
    sharded = [*checkpoint.glob("optimizer.bin"), *checkpoint.glob("optimizer_*")]
    return "fsdp" if sharded else "ddp or one process"


def same_everywhere(value: Any) -> Any:
    """The main process's value, in every process; all must call it."""
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def leave() -> None:
    """Part from the other processes once all are here."""
    from accelerate import PartialState

    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


def shares(per_step: int, per_pass: int, processes: int) -> tuple[int, int]:
    """Prompts in one pass of one process, and passes in one step: with processes they multiply to
    the prompts of a step, because passes of unequal size would weigh prompts apart.

    Args:
        per_step: prompts in one step, over all processes.
        per_pass: at most so many in one pass.
        processes: how many there are.

    Raises:
        ValueError: the prompts of a step cannot be shared out equally.

    Example:
        >>> shares(12, 4, 2)
        (3, 2)
    """
    if per_step % processes:
        low = per_step - per_step % processes
        wanted = " or ".join(str(n) for n in (low, low + processes) if n)
        raise ValueError(
            f"prompts_per_step is {per_step} (all prompts, where it is left out), and {processes} "
            f"processes train; a multiple of {processes} is needed, because each process takes "
            f"the same number of prompts in every step. Give {wanted}, or other processes."
        )
    share = per_step // processes
    size = next(size for size in range(min(per_pass, share), 0, -1) if share % size == 0)
    return size, share // size


def refuse_several(solver: str) -> None:
    """Refuse a solver that trains in one process where several were started.

    Raises:
        ValueError: more than one process.
    """
    if started() > 1:
        raise ValueError(
            f"{started()} processes were started, and {solver} trains in one: each of them would "
            "do all the work and write the same files. Start one process, or choose `Regression` "
            "(training.kind: offline), which shares every step out among them."
        )
