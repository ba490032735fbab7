"""How several processes are started to train one policy: accelerate's launcher and its settings.

What cannot be launched is refused while the experiment is checked, before long work.
"""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from infalign.config.solvers import LAUNCHES
from infalign.training import processes

__all__ = ["command_of", "configuration_of", "has_gpu", "refuse_unlaunchable"]

_PACKAGED = Path(__file__).parents[1] / "training" / "accelerate"


def has_gpu() -> bool:
    """Whether training would find a GPU."""
    import torch

    return torch.cuda.is_available()


def configuration_of(training: Any, *, has_gpu: bool) -> Path:
    """The accelerate configuration that an experiment's `training` names.

    Args:
        training: with `processes` and `accelerate`.
        has_gpu: without a GPU `ddp` is two processes on the CPU.
    """
    how = training.accelerate or "ddp"
    if how not in LAUNCHES:
        return Path(how).expanduser().resolve()
    return _PACKAGED / f"{'cpu' if how == 'ddp' and not has_gpu else how}.yaml"


def command_of(training: Any, module: str, arguments: Sequence[str], *, has_gpu: bool) -> list[str]:
    """The command that runs `python -m module arguments` in `training.processes` processes."""
    if training.processes == 1:
        return [sys.executable, "-m", module, *arguments]
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(configuration_of(training, has_gpu=has_gpu))]
    # Port 0: a free one, because several policies may train side by side.
    command += ["--num_processes", str(training.processes), "--main_process_port", "0"]
    return [*command, "-m", module, *arguments]


def refuse_unlaunchable(training: Any, *, has_gpu: bool, gpus: int | None = None) -> None:
    """Refuse a configuration that is not there, or under which training would be wrong.

    Args:
        training: with `processes` and `accelerate`.
        has_gpu: whether training would find a GPU.
        gpus: how many; by default those PyTorch counts.

    Raises:
        ValueError: the file cannot be used; the message names the setting and the value needed.
        ImportError: it needs DeepSpeed, which is not installed.
    """
    if processes.started() > 1:
        raise ValueError(
            f"{processes.started()} processes of `infalign` were started; 1 is needed, because it "
            f"starts its own: give `--set training.processes={processes.started()}` instead, or "
            "start `infalign.pipeline.worker` as docs/engines/accelerate.md shows."
        )
    if training.processes == 1:
        return
    path, how = configuration_of(training, has_gpu=has_gpu), training.accelerate
    settings = _read(path, how)
    kind = _refuse_launch(path, settings, has_gpu)
    _refuse_values(path, settings, kind, getattr(training, "engine", "builtin"))
    if how not in (None, *LAUNCHES):
        _refuse_unread(path)
    if kind == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise ImportError(
            f"training.accelerate is {how!r}, which needs DeepSpeed, and it is not installed: "
            "pip install deepspeed. Or choose `fsdp`, which comes with PyTorch."
        )
    if kind in ("FSDP", "DEEPSPEED") and not has_gpu:
        raise ValueError(
            f"training.accelerate is {how!r}, and no GPU is found; `ddp` is needed here, because "
            "accelerate shards parameters on accelerators only."
        )
    if has_gpu:
        _refuse_more_than(_gpus() if gpus is None else gpus, training.processes, path, settings)


_KINDS = ("MULTI_GPU", "FSDP", "DEEPSPEED")
"""Of accelerate's ways, those that start several processes here; without a GPU the first."""


def _refuse_launch(path: Path, settings: Mapping[str, Any], has_gpu: bool) -> str:
    """Refuse what would start other processes than those asked for; returns the way they work."""
    kind = settings["distributed_type"]
    place = settings.get("compute_environment", "LOCAL_MACHINE")
    machines = settings.get("num_machines", 1)
    on_cpu = settings.get("use_cpu", False)
    _needed(
        path, "distributed_type", kind, isinstance(kind, str) and kind in _KINDS,
        f"one of {', '.join(_KINDS)}", "accelerate starts one process under others, or none; "
        "MULTI_GPU is right on CPUs too",
    )  # fmt: skip
    _needed(
        path, "compute_environment", place, place == "LOCAL_MACHINE", "LOCAL_MACHINE",
        "`infalign` starts processes on its own machine alone",
    )  # fmt: skip
    _needed(
        path, "num_machines", machines, machines == 1 and not isinstance(machines, bool),
        "1", "`infalign` starts processes on its own machine alone. Start each machine's "
        "yourself: docs/engines/accelerate.md has the commands",
    )  # fmt: skip
    _needed(
        path, "use_cpu", on_cpu, _word(on_cpu) == "false" or not has_gpu, "false",
        "a GPU is found, and the policy is on it",
    )  # fmt: skip
    return kind


def _refuse_values(path: Path, settings: Mapping[str, Any], kind: str, engine: str) -> None:
    """Refuse what accelerate would launch, and the policy would be trained wrongly under."""
    found = {"mixed_precision": _or_no(settings.get("mixed_precision"))}
    compiled = _section(path, settings, "dynamo_config", "dynamo_")
    found["dynamo_config.dynamo_backend"] = _or_no(compiled.get("dynamo_backend"))
    stage = None
    if kind == "FSDP":
        sharding = _section(path, settings, "fsdp_config", "fsdp_")
        for name in ("fsdp_version", "fsdp_cpu_ram_efficient_loading"):
            found[f"fsdp_config.{name}"] = _word(sharding.get(name, ""))
    if kind == "DEEPSPEED":
        sharding = _section(path, settings, "deepspeed_config", "")
        own = sharding.get("deepspeed_config_file")
        _needed(
            path, "deepspeed_config.deepspeed_config_file", own, own in (None, "none"), "none",
            "its settings are not checked here; give zero_stage and the others themselves",
        )  # fmt: skip
        stage = _word(sharding.get("zero_stage", 2))
        for name in ("zero3_init_flag", "zero3_save_16bit_model") if stage == "3" else ():
            found[f"deepspeed_config.{name}"] = _word(sharding.get(name, ""))
    several = settings.get("parallelism_config")
    _needed(
        path, "parallelism_config", several, not several, "nothing",
        "processes share out prompts, not the parts of a model or of a text",
    )  # fmt: skip
    processes.refuse_settings(found, str(path))
    if engine == "trl" and (kind == "FSDP" or stage == "3"):
        what = "distributed_type" if kind == "FSDP" else "deepspeed_config.zero_stage"
        _needed(
            path, what, kind if kind == "FSDP" else stage, False, "MULTI_GPU, or zero_stage 2,",
            "training.engine is trl, whose checkpoints here hold the weights of one process",
        )  # fmt: skip


def _refuse_unread(path: Path) -> None:
    """Refuse what accelerate's own reader does: keys and values that it does not know."""
    from accelerate.commands.config.config_args import load_config_from_file

    try:
        load_config_from_file(str(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: accelerate cannot read it: {error}") from error


def _refuse_more_than(gpus: int, count: int, path: Path, settings: Mapping[str, Any]) -> None:
    chosen = "all" if settings.get("gpu_ids") is None else settings["gpu_ids"]
    _needed(
        path, "gpu_ids", chosen, isinstance(chosen, str), "'all', or a list as text like '0,1',",
        "accelerate takes nothing else",
    )  # fmt: skip
    listed = len(chosen.split(","))
    free = gpus if chosen == "all" else min(gpus, listed)
    if count > free:
        said = f", of which {path} names {listed} (gpu_ids)" if free < gpus else ""
        raise ValueError(
            f"training.processes is {count}, but this machine has {gpus} GPU{'s' * (gpus != 1)}"
            f"{said}; at most {free} is needed, because each process trains on a GPU of its own."
        )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _word(value: Any) -> str:
    """As accelerate's launcher hands it on."""
    return str(value).lower()


def _or_no(value: Any) -> str:
    if value is False:
        return "false (which YAML reads in a bare no; accelerate needs it in quotes)"
    return "no" if value is None else _word(value)


def _section(path: Path, settings: Mapping[str, Any], name: str, prefix: str) -> Mapping[str, Any]:
    """A part of the configuration; accelerate takes its keys with or without their prefix."""
    part = settings.get(name) or {}
    if not isinstance(part, Mapping):
        raise ValueError(f"{path}: {name} is {part!r}; keys and values are needed.")
    return {f"{prefix}{str(key).removeprefix(prefix)}": value for key, value in part.items()}


def _needed(path: Path, name: str, found: Any, holds: bool, wanted: str, why: str) -> None:
    if not holds:
        raise ValueError(f"{path}: {name} is {found!r}; {wanted} is needed, because {why}.")


def _read(path: Path, how: str | None) -> Mapping[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"training.accelerate is {how!r}, and there is no file {path}; one of "
            f"{', '.join(LAUNCHES)} is needed, or the path of an accelerate configuration."
        )
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    if not isinstance(settings, Mapping) or "distributed_type" not in settings:
        raise ValueError(
            f"{path} says no distributed_type, so it is no accelerate configuration; `accelerate "
            "config --config_file …` writes one."
        )
    return settings
