"""TRL arrives at the reference's tokens, and ends its responses where the reference did."""

import pytest
import torch
from small import PROMPTS
from tokenizers import processors
from transformers import GenerationConfig

from infalign.integrations.trl import hold_to_law, prompts_for_trl
from infalign.integrations.trl.rules import Law
from infalign.policies.tokens import TextCodec
from infalign.prompts import Prompt, render_prompts


def asked(tokenizer, prompts):
    """The tokens TRL makes of prompts."""
    if isinstance(prompts[0], str):
        return tokenizer(text=prompts)["input_ids"]
    return tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]


def with_beginning(tokenizer):
    """The tokenizer made to add a token at the beginning, as Llama's does."""
    import copy

    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    return other


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("is_chat", [False, True])
def test_trl_arrives_at_the_tokens_the_reference_saw(tokenizer, adds, is_chat):
    used = with_beginning(tokenizer) if adds else tokenizer
    prompts = PROMPTS
    if is_chat:
        turns = [[{"role": "user", "content": prompt.text}] for prompt in PROMPTS]

        def template(messages):
            return used.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

        prompts = render_prompts([Prompt.from_messages(t) for t in turns], template)
    codec = TextCodec(used, (), ())
    expected = [list(codec.encode(prompt.text)) for prompt in prompts]
    assert asked(used, prompts_for_trl(prompts, used)) == expected
    plain = asked(used, [prompt.text for prompt in prompts])
    assert (plain == expected) is (adds != is_chat), "texts as they are do not always do"


def test_prompts_that_trl_would_read_otherwise_are_refused(tokenizer):
    used = with_beginning(tokenizer)
    rendered = Prompt("1", "<|im_start|>user\nHi<|im_end|>\n")
    with pytest.raises(ValueError, match=r"prompt 1 .* reaches TRL as other tokens"):
        prompts_for_trl([rendered], used)


def test_a_model_ends_its_responses_where_the_reference_did(tiny_llama, tokenizer):
    model = tiny_llama(len(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=2, bos_token_id=1, suppress_tokens=[5, 6], no_repeat_ngram_size=2
    )
    ids = hold_to_law(model, tokenizer, Law(0.1, 0.9, 8, ("e",)))
    assert ids == model.generation_config.eos_token_id
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    assert ids == sorted({2} | {i for i, text in enumerate(texts) if "e" in text})
    assert model.generation_config.suppress_tokens is None, "no part of the law"
    prompt = torch.tensor([[0, 10, 11]])
    torch.manual_seed(0)
    prompt = prompt.repeat(64, 1)
    written = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        max_new_tokens=8,
        pad_token_id=2,
    )[:, 3:].tolist()
    ends = [[place for place, token in enumerate(row) if token in ids] for row in written]
    rows = [(row, places[0]) for row, places in zip(written, ends, strict=True) if places]
    assert any(row[place] != 2 for row, place in rows), "a stop string ended some"
    assert all(set(row[place + 1 :]) <= {2} for row, place in rows)
