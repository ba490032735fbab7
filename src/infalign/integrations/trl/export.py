"""What `trl rloo --config rloo.yaml` needs: prompts by their id, and every option the theory needs.

Paths in the YAML are absolute, because TRL resolves them where it is started. Where the model's own
files would make TRL sample from another law (a stop string, a list of suppressed tokens), the
export holds a `model/` of links to its files with a generation configuration of its own.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import yaml

from infalign.integrations.engine_files import (
    Batches,
    model_of,
    refuse_settings,
    rows_of,
    write_folder,
)
from infalign.integrations.frozen import FrozenReward
from infalign.integrations.trl.configs import check_config, import_trl
from infalign.integrations.trl.reward import ENVIRONMENT
from infalign.integrations.trl.rules import Law, needed_options
from infalign.integrations.trl.sampling import prompts_for_trl, stop_ids_of
from infalign.prompts import Prompt

__all__ = ["write_trl"]

GENERATION = "generation_config.json"
_HARMLESS = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "use_cache"}
_OVERRULED = {"do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"}
"""Settings of a model that TRL sets itself in every call."""


def write_trl(
    frozen_folder: str | Path,
    prompts: Sequence[Prompt],
    folder: str | Path,
    *,
    model: str | None = None,
    batches: Batches | None = None,
    prompt_tokens: int | None = None,
    trainer: Literal["rloo", "grpo"] = "rloo",
) -> Path:
    """Write `train.jsonl` and `rloo.yaml` or `grpo.yaml` for training on a frozen reward.

    Args:
        frozen_folder: the frozen reward; the YAML names it by its absolute path.
        prompts: to train on, rendered as they were for the reference.
        folder: made; one that holds the same export is left as it is.
        model: path or name of the weights to start from; by default the recorded reference's.
        batches: the size of an update on one process; several processes multiply it.
        prompt_tokens: of the longest prompt, for vLLM's context window.
        trainer: whose options are written.

    Raises:
        ValueError: a setting TRL cannot express or that breaks the theory, prompts that do not fit
            the frozen reward or reach TRL as other tokens, or a folder that holds something else.
        OSError: the model's tokenizer cannot be loaded.
        ImportError: trl is not installed.
    """
    from transformers import AutoTokenizer

    frozen, folder = FrozenReward.load(frozen_folder), Path(folder).absolute()
    refuse_settings(frozen, "TRL")
    rows, batches = rows_of(frozen, prompts, str), batches or Batches()
    batches.check(rows)
    law, source = Law.of(frozen), model_of(frozen, model)
    tokenizer = AutoTokenizer.from_pretrained(source)
    texts = prompts_for_trl(prompts, tokenizer)
    generation, stops = _generation(source, tokenizer, law)
    options = _options(trainer, law, batches)
    _check(trainer, options, law)
    named = {
        "model_name_or_path": source if generation is None else str(folder / "model"),
        "datasets": [{"path": "json", "data_files": str(folder / "train.jsonl")}],
        "reward_funcs": ["infalign.integrations.trl.training_reward"],
        "output_dir": str(folder / "output"),
        "env": {ENVIRONMENT: str(frozen.folder), "HF_HUB_DISABLE_TELEMETRY": "1"},
    }
    window = None if prompt_tokens is None else prompt_tokens + law.max_new_tokens
    written = {
        "train.jsonl": _jsonl(texts, [row.prompt_id for row in rows]),
        f"{trainer}.yaml": _yaml(trainer, named, options, batches, stops, window).encode(),
    }
    write_folder(folder, written)
    if generation is not None:
        _link(_local(source), folder / "model", generation)
    return folder


def _options(trainer: str, law: Law, batches: Batches) -> dict[str, Any]:
    """What the theory needs; options whose value is nothing are left at TRL's default, which is it.

    The size of an update is put first, so that it is found.
    """
    needed = needed_options(trainer, law, batches.samples)
    return {
        "per_device_train_batch_size": batches.samples,
        "gradient_accumulation_steps": batches.prompts,
        "num_train_epochs": batches.epochs,
        **{name: value for name, value in needed.items() if value is not None},
    }


def _check(trainer: str, options: dict[str, Any], law: Law) -> None:
    trl = import_trl()
    kind = trl.RLOOConfig if trainer == "rloo" else trl.GRPOConfig
    check_config(kind(**options, use_cpu=True, bf16=False, report_to="none"), law)


def _generation(source: str, tokenizer: Any, law: Law) -> tuple[dict[str, Any] | None, list[int]]:
    """The generation configuration that the law needs, None where the model's own will do; and the
    tokens that end a response."""
    from transformers import AutoConfig, GenerationConfig

    try:
        own = GenerationConfig.from_pretrained(source)
    except OSError:
        own = GenerationConfig.from_model_config(AutoConfig.from_pretrained(source))
    stated = {name for name, value in own.to_diff_dict().items() if value is not None}
    silent = {name for name in stated if name.startswith(("_", "output_", "return_"))}
    odd = stated - silent - _HARMLESS - _OVERRULED
    plain = SimpleNamespace(generation_config=own)
    stops = stop_ids_of(plain, tokenizer, law)
    enough = not odd and stops == stop_ids_of(plain, tokenizer, Law(law.beta, 1.0, 1))
    if enough:
        return None, stops
    kept = {"bos_token_id": own.bos_token_id, "pad_token_id": own.pad_token_id}
    return {**kept, "eos_token_id": stops}, stops


def _local(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source).absolute()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source))


def _link(source: Path, folder: Path, generation: dict[str, Any]) -> None:
    """A folder of links to a model's files, with a generation configuration of its own."""
    folder.mkdir(exist_ok=True)
    for file in sorted(source.iterdir()):
        link = folder / file.name
        if file.name != GENERATION and not link.is_symlink():
            os.symlink(file.resolve(), link)
    (folder / GENERATION).write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _jsonl(prompts: Sequence[Any], ids: Sequence[str]) -> bytes:
    rows = zip(prompts, ids, strict=True)
    lines = [json.dumps({"prompt": p, "prompt_id": i}, ensure_ascii=False) for p, i in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def _yaml(
    trainer: str,
    named: dict[str, Any],
    options: dict[str, Any],
    batches: Batches,
    stops: Sequence[int],
    window: int | None,
) -> str:
    width = f"  # vllm_max_model_length: {window}\n" if window else ""
    return _TEXT.format(
        trainer=trainer,
        named=_dumped(named),
        options=_dumped(options),
        rows=batches.prompts * batches.samples,
        stops=list(stops),
        window=width.lstrip(),
    )


def _dumped(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=1000)


_TEXT = """\
# trl {trainer} --config {trainer}.yaml
# Paths are absolute: export again after moving this folder.

{named}
# An update is {rows} responses on one process: divide gradient_accumulation_steps by the number of
# processes. What follows after these three the theory needs as it is: any other value trains
# towards another optimum, and TRL will not say so.
{options}
# Yours to choose.
use_peft: true
lora_r: 16
lora_alpha: 32
lora_dropout: 0.0
lora_target_modules: all-linear
learning_rate: 1.0e-05
lr_scheduler_type: constant
logging_steps: 1
save_steps: 50
report_to: none

# Sampling by vLLM, in the same process or by a server of its own:
# use_vllm: true
# vllm_mode: colocate
# generation_kwargs: {{stop_token_ids: {stops}}}
{window}"""
