"""A tiny random-initialised Llama with a byte-level BPE tokenizer: the language model of the tests.

Its vocabulary of a few hundred tokens and float32 weights make enumeration and exact comparison
possible; nothing is fetched.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from infalign.protocols import Sampling

sys.path.insert(0, str(Path(__file__).parent))  # for `tests/servers.py`

TEXT = [
    "a tender and touching story with an incredible cast.",
    'the film is "lush" and beautifully photographed.',
    "it is a lazy excuse for a lazy film, contrived and cliche.",
]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


@pytest.fixture(scope="session")
def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    inner.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=CHAT
    )


@pytest.fixture(scope="session")
def tiny_llama():
    """Makes random Llamas: vocabulary size, seed."""

    def make(vocabulary, seed=0, window=64):
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=window,
            tie_word_embeddings=True,
            eos_token_id=2,
            bos_token_id=1,
            pad_token_id=2,
            initializer_range=0.3,
            attn_implementation="sdpa",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return LlamaForCausalLM(config)

    return make


@pytest.fixture
def make_lm(tiny_llama, tokenizer):
    """Makes policies on a tiny Llama; every option of CausalLM may be given."""

    def make(sampling=None, *, seed=0, window=64, **options):
        from infalign.policies import CausalLM

        sampling = sampling or Sampling(temperature=0.8, max_new_tokens=6, stop=('"',))
        model = tiny_llama(len(tokenizer), seed, window)
        return CausalLM(model, tokenizer, sampling, **({"dtype": "float32"} | options))

    return make


@pytest.fixture
def trained_lm(make_lm, shake):
    """A policy whose adapter has moved away from the reference."""

    def make(sampling=None, **options):
        from infalign.policies import LoRA

        lm = make_lm(sampling, **({"lora": LoRA(rank=4)} | options))
        shake(lm)
        return lm

    return make


@pytest.fixture
def shake():
    """Moves an adapter's zero half to a fixed random place."""

    def move(lm, size=0.2, seed=0):
        import torch

        rng = np.random.default_rng(seed)
        for name, parameter in lm.module.named_parameters():
            if "lora_B" in name:
                values = rng.normal(0, size, tuple(parameter.shape))
                parameter.data.copy_(torch.from_numpy(values))

    return move


@pytest.fixture(scope="session")
def served(tiny_llama, tokenizer, tmp_path_factory):
    """A real server of the tiny Llama; it may be killed, and is started again where it is gone."""
    pytest.importorskip("openai")
    from servers import Served

    folder = tmp_path_factory.mktemp("served") / "tiny"
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    server = Served(folder)
    server.start()
    server.wait()
    yield server
    server.kill()
