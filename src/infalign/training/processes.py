"""One run, several processes: who writes, who waits, and how a step's prompts are shared out.

`accelerate launch` (or torchrun) starts the same program several times. Every process computes the
same things from the same random numbers except the gradient, of which each takes its share.
"""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import accelerate

__all__ = ["joined", "leave", "refuse_several", "same_everywhere", "shares", "started"]

_PATIENCE = timedelta(hours=6)
"""How long processes wait for the main one, which samples and asks the reward when it measures."""


def started() -> int:
    """How many processes the launcher says there are; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def joined(*, cpu: bool) -> "accelerate.PartialState":
    """This process among those that train with it, all connected.

    Args:
        cpu: stay on the CPU (gloo) whatever else this machine has.
    """
    from accelerate import PartialState

    _refuse_sharding()
    return PartialState(cpu=cpu, timeout=_PATIENCE) if started() > 1 else PartialState(cpu=cpu)


def _refuse_sharding() -> None:
    """Refuse accelerate's settings under which a policy would not score by its own weights."""
    said = os.environ
    if said.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        for name, key, wanted, why in (
            ("fsdp_version", "FSDP_VERSION", "2", "the older one cannot shard an adapter in place"),
            ("fsdp_cpu_ram_efficient_loading", "FSDP_CPU_RAM_EFFICIENT_LOADING", "false", _LOADS),
        ):
            _require(f"fsdp_config.{name}", said.get(key, "").lower(), wanted, why)
    if said.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3":
        found = said.get("ACCELERATE_DEEPSPEED_ZERO3_INIT", "true").lower()
        _require("deepspeed_config.zero3_init_flag", found, "false", _LOADS)
        found = said.get("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", "false").lower()
        _require("deepspeed_config.zero3_save_16bit_model", found, "false", _SAVES)


_LOADS = "every process copies the float32 head from weights that it has loaded itself"
_SAVES = "a checkpoint then is the whole model, and tied embeddings cannot be written"


def _require(name: str, found: str, wanted: str, why: str) -> None:
    if found != wanted:
        raise ValueError(
            f"{name} is {found or 'left out'} in the accelerate configuration; {wanted} is needed, "
            f"because {why}. The configurations that come with infalign have it."
        )


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
