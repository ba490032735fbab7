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


def refuse_unlaunchable(training: Any, *, has_gpu: bool) -> None:
    """Refuse a configuration that is not there, or under which training would be wrong.

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
    if int(settings.get("num_machines", 1)) != 1:
        raise ValueError(
            f"{path}: num_machines is {settings['num_machines']}; 1 is needed here, because "
            "`infalign` starts processes on its own machine alone. Start each machine's yourself: "
            "docs/engines/accelerate.md has the commands."
        )
    kind = settings["distributed_type"]
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
