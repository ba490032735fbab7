"""A GGUF file of the Llama family becomes an ordinary Hugging Face folder, once.

The quantised matrices are expanded to float32: the reference policy *is* the de-quantised model,
so its KL to anything trained from it is exact whatever the rounding did. The file names tensors in
llama.cpp's way and stores query and key rows permuted for its rotary embedding; both are undone.
"""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["convert_gguf"]

_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_CONTROL_TOKEN = 3
"""GGUF's type number of tokens that are never part of ordinary text."""


def convert_gguf(path: Path, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` (float32) and the tokenizer of a GGUF Llama.

    Args:
        path: the GGUF file; its architecture must be `llama` with tied embeddings and a
            byte-level BPE vocabulary.
        folder: an existing folder to write into.

    Raises:
        ValueError: another architecture or vocabulary.
    """
    import gguf  # heavy, and needed once per machine
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(path)
    field = {name: entry.contents for name, entry in reader.fields.items()}
    architecture = field["general.architecture"]()
    vocabulary = field["tokenizer.ggml.model"]()
    if (architecture, vocabulary) != ("llama", "gpt2"):
        raise ValueError(
            f"{path.name} holds a {architecture} model with a {vocabulary} vocabulary; only llama "
            "with gpt2 (byte-level BPE) is converted. Load it with transformers' gguf_file option."
        )
    config = _config(field)
    _tokenizer(field).save_pretrained(folder)
    config.save_pretrained(folder)
    save_file(_weights(reader, config), folder / "model.safetensors", metadata={"format": "pt"})


def _config(field: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(field["tokenizer.ggml.tokens"]()),
        hidden_size=field["llama.embedding_length"](),
        intermediate_size=field["llama.feed_forward_length"](),
        num_hidden_layers=field["llama.block_count"](),
        num_attention_heads=field["llama.attention.head_count"](),
        num_key_value_heads=field["llama.attention.head_count_kv"](),
        max_position_embeddings=field["llama.context_length"](),
        rms_norm_eps=field["llama.attention.layer_norm_rms_epsilon"](),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": field["llama.rope.freq_base"](),
        },
        tie_word_embeddings=True,
        bos_token_id=field["tokenizer.ggml.bos_token_id"](),
        eos_token_id=field["tokenizer.ggml.eos_token_id"](),
        pad_token_id=field["tokenizer.ggml.padding_token_id"](),
        dtype="float32",
    )


def _weights(reader: Any, config: Any) -> dict[str, np.ndarray]:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    return dict(_tensor(tensor, heads) for tensor in reader.tensors)


def _tensor(tensor: Any, heads: dict[str, int]) -> tuple[str, np.ndarray]:
    import gguf

    values = np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
    stem = tensor.name.removesuffix(".weight")
    if stem == "token_embd":
        return "model.embed_tokens.weight", values
    if stem == "output_norm":
        return "model.norm.weight", values
    _, layer, kind = stem.split(".")
    if kind in heads:
        values = _unpermute(values, heads[kind])
    return f"model.layers.{layer}.{_LAYER_NAMES[kind]}.weight", values


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of the two rotary halves of each head."""
    size, inputs = rows.shape
    halves = rows.reshape(heads, size // heads // 2, 2, inputs).swapaxes(1, 2)
    return np.ascontiguousarray(halves.reshape(size, inputs))


def _tokenizer(field: dict[str, Any]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = field["tokenizer.ggml.tokens"]()
    kinds = field["tokenizer.ggml.token_type"]()
    merges = [tuple(merge.split(" ")) for merge in field["tokenizer.ggml.merges"]()]
    model = models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    tokenizer = Tokenizer(model)
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    control = [t for t, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[field["tokenizer.ggml.bos_token_id"]()],
        eos_token=tokens[field["tokenizer.ggml.eos_token_id"]()],
        pad_token=tokens[field["tokenizer.ggml.padding_token_id"]()],
        unk_token=tokens[field["tokenizer.ggml.unknown_token_id"]()],
        chat_template=field["tokenizer.chat_template"](),
        model_max_length=field["llama.context_length"](),
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
