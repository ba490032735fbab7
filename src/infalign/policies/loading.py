"""From a folder or model id to a body, a float32 head, a tokenizer and perhaps an adapter."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from infalign.policies.next_token import Head

__all__ = [
    "DType",
    "LoRA",
    "adapter_hash",
    "attach",
    "attention_window",
    "choose_attention",
    "fastest_dtype",
    "head_of",
    "is_idle",
    "load",
    "load_adapter",
    "weights_hash",
]

_log = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class LoRA:
    """A low-rank adapter on every linear layer of the body; switched off, it is the reference."""

    rank: int = 16
    """Rank of each update. ≥ 1."""
    alpha: float = 32.0
    """The update is scaled by alpha/rank."""
    dropout: float = 0.0
    """Zero keeps log-probabilities exact while training."""
    layers: int | None = None
    """Adapt only the last so many layers: the backward pass stops there. None: all."""
    seed: int = 0
    """Of the adapter's random half."""


@functools.cache
def fastest_dtype(device: str) -> torch.dtype:
    """bfloat16 where a product of the body's shape is faster in it than in float32.

    On a CPU it is timed (a few milliseconds), because not every CPU has bfloat16 units; without
    them it is several times slower.
    """
    if device != "cpu":
        supported = not device.startswith("cuda") or torch.cuda.is_bf16_supported()
        return torch.bfloat16 if supported else torch.float32
    fast, plain = _seconds(torch.bfloat16), _seconds(torch.float32)
    if fast < 0.8 * plain:
        return torch.bfloat16
    _log.warning(
        "this CPU multiplies no faster in bfloat16 than in float32, so the model runs in float32: "
        "exact, and up to twice as slow as on a CPU with bfloat16 units."
    )
    return torch.float32


def _seconds(dtype: torch.dtype) -> float:
    left, right = torch.ones(512, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - start)
    return best


def load(path: str, device: str) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from a folder or a model id.

    Raises:
        ValueError: nothing loadable there.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    model: Any
    try:
        stored = getattr(AutoConfig.from_pretrained(path), "dtype", None)
        # What is stored in half precision is not blown up; what is stored in float32 keeps an
        # exact head.
        dtype = stored if stored in (torch.bfloat16, torch.float16) else torch.float32
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"no causal language model could be loaded from {path!r}: {error}. Give a local "
            "folder with config.json, weights and tokenizer, or a model id your hub can serve."
        ) from error
    return model.to(device=device), tokenizer


def choose_attention(model: Any) -> None:
    """On a CPU in bfloat16, attention by plain products: the fused backward pass there is slow.

    Measured on 24 sequences of 10 tokens of a 135M model: the fused kernel's backward pass alone
    took 0.5 s of a step of 1.4 s, plain products less than 0.05 s. In float32 it does not matter.
    """
    parameter = next(model.parameters())
    if parameter.device.type == "cpu" and parameter.dtype == torch.bfloat16:
        model.set_attn_implementation("eager")


def attention_window(model: Any) -> float:
    """How far back every layer sees; a mask of our own would lift a shorter limit."""
    config = model.config.get_text_config()
    limits = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((limit for limit in limits if limit), default=float("inf"))


def head_of(model: Any) -> Head:
    """The float32 head of a causal language model, with what its family does to logits."""
    output = model.get_output_embeddings()
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    bias = getattr(output, "bias", None)
    return Head(
        weight=output.weight.detach().float(),
        bias=None if bias is None else bias.detach().float(),
        scale=float(scale),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def attach(model: Any, lora: LoRA) -> Any:
    """Wrap the model with an adapter whose weights are float32 and fixed by the seed."""
    import peft

    body = model.get_decoder()
    names = {
        name.rsplit(".", 1)[-1]
        for name, layer in body.named_modules()
        if isinstance(layer, torch.nn.Linear) or type(layer).__name__ == "Conv1D"
    }
    depth = model.config.get_text_config().num_hidden_layers
    if lora.layers is not None and not 1 <= lora.layers <= depth:
        raise ValueError(f"layers is {lora.layers}; this model has {depth}: give 1 to {depth}.")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=sorted(names),
        layers_to_transform=None
        if lora.layers is None
        else list(range(depth - lora.layers, depth)),
    )
    with _seeded(lora.seed):
        return peft.get_peft_model(model, config)


def load_adapter(module: Any, folder: Path) -> None:
    """Read a stored adapter into a wrapped model, in place.

    Raises:
        ValueError: no adapter there, or one of another shape.
    """
    import peft
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ValueError(f"{folder} holds no adapter (adapter_model.safetensors); save one first.")
    state = load_file(file)
    wanted = {name: tensor.shape for name, tensor in peft.get_peft_model_state_dict(module).items()}
    if {name: tensor.shape for name, tensor in state.items()} != wanted:
        raise ValueError(
            f"the adapter in {folder} does not fit: {len(state)} tensors for {len(wanted)} here. "
            "It must come from the same model, with the same rank and layers."
        )
    peft.set_peft_model_state_dict(module, state)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """peft draws from torch's global generator: lend it a seed and give the state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def weights_hash(model: Any, folder: str | None) -> str:
    """SHA-256 of the weight, config and tokenizer files, or of the tensors of a model in memory."""
    files = _files(folder)
    digest = hashlib.sha256()
    if files:
        for file in files:
            with file.open("rb") as opened:
                digest.update(file.name.encode() + hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()
    for name, tensor in sorted(model.state_dict().items()):
        if "lora_" not in name:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            digest.update(plain.encode() + _bytes(tensor))
    return digest.hexdigest()


def adapter_hash(module: Any) -> str:
    """Hash of the adapter, or nothing while it is still the identity (its second half is zero)."""
    if is_idle(module):
        return ""
    tensors = {n: t.detach() for n, t in sorted(module.named_parameters()) if "lora_" in n}
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode() + _bytes(tensor))
    return digest.hexdigest()


def is_idle(module: Any) -> bool:
    """Whether there is no adapter or it changes nothing, its second half being all zero."""
    return not any("lora_B" in n and bool(t.any()) for n, t in module.named_parameters())


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _files(source: str | None) -> list[Path]:
    if source is None:
        return []
    folder = Path(source)
    if not folder.is_dir():
        from transformers.utils.hub import cached_file

        config = cached_file(source, "config.json")
        folder = Path(str(config)).parent
    kept = ("*.safetensors", "*.bin", "config.json", "tokenizer.json")
    return sorted(file for pattern in kept for file in folder.glob(pattern))
