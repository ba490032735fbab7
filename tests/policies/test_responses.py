"""Where a response ends, what a reader sees of it, and what is refused before work begins."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import LoRA  # noqa: E402
from infalign.policies.tokens import TextCodec  # noqa: E402
from infalign.protocols import Response, Sampling  # noqa: E402


def rng():
    return np.random.default_rng(0)


def test_a_response_ends_with_its_first_ending_token_or_at_the_cap(make_lm):
    lm = make_lm(Sampling(max_new_tokens=5, stop=('"', "e")))
    responses = [r for row in lm.sample(["a", "the film"], 200, rng()) for r in row]
    reasons = {reason: [r for r in responses if r.finish_reason == reason]
               for reason in ("stop", "length")}  # fmt: skip
    assert all(reasons.values())
    for response in reasons["stop"]:
        *before, last = response.token_ids
        assert last in lm.codec.stop_ids
        assert not lm.codec.stop_ids & set(before)
    for response in reasons["length"]:
        assert len(response.token_ids) == 5
        assert not lm.codec.stop_ids & set(response.token_ids)


def test_a_reader_sees_neither_stop_string_nor_special_tokens(tokenizer):
    codec = TextCodec(tokenizer, ('"',), [2])
    ids = tokenizer('is "lush', add_special_tokens=False)["input_ids"]
    assert codec.text(ids) == 'is "lush'  # its last token does not end a response
    upto = next(n for n in range(1, len(ids) + 1) if ids[n - 1] in codec.stop_ids)
    assert codec.text(ids[:upto]) == "is "
    assert codec.text([*tokenizer("lush")["input_ids"], 2]) == "lush"
    assert codec.text([2]) == ""


def test_every_token_that_contains_a_stop_string_ends_a_response(tokenizer):
    codec = TextCodec(tokenizer, ("us", '"'), [2])
    texts = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    expected = {i for i, text in enumerate(texts) if "us" in text or '"' in text} | {2}
    assert codec.stop_ids == expected
    assert len(expected) > 3


def test_plain_text_starts_a_document_and_rendered_text_does_not(make_lm):
    lm = make_lm(window=256)
    assert lm.codec.encode("the film")[0] == 0
    chat = lm.render_chat([{"role": "user", "content": "the film"}])
    assert chat.startswith("<|im_start|>user\nthe film<|im_end|>")
    assert lm.codec.encode(chat)[0] == 1
    assert lm.sample([chat], 1, rng())


def test_a_model_without_chat_template_says_so(make_lm):
    lm = make_lm()
    template, lm.tokenizer.chat_template = lm.tokenizer.chat_template, None
    try:
        with pytest.raises(ValueError, match="no chat template"):
            lm.render_chat([{"role": "user", "content": "x"}])
    finally:
        lm.tokenizer.chat_template = template


def test_an_empty_prompt_is_answered_from_the_document_start(make_lm):
    lm = make_lm()
    assert lm.codec.encode("") == (0,)
    assert lm.sample([""], 2, rng())[0][0].token_ids


def test_a_prompt_longer_than_the_window_is_refused_by_name(make_lm):
    lm = make_lm(window=20)
    with pytest.raises(ValueError, match=r"prompt 1 \('the film.*context window of 20"):
        lm.sample(["a", "the film " * 30], 2, rng())


def test_asking_for_no_responses_is_refused(make_lm):
    with pytest.raises(ValueError, match="k is 0"):
        make_lm().sample(["a"], 0, rng())


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ((), "0 token ids"),
        ((5,) * 7, "7 token ids"),
        ((5, 2, 5, 5, 5, 5), "goes on after"),
        ((5, 5), "breaks off"),
    ],
)
def test_a_response_of_another_law_is_refused(make_lm, ids, reason):
    lm = make_lm()
    with pytest.raises(ValueError, match=rf"response \[1\]\[0\].*{reason}"):
        lm.log_prob(["a", "a"], [[Response("", (2,))], [Response("", ids)]])


@pytest.mark.parametrize("responses", [[], [[], []], [[Response("", (2,))], []]])
def test_ragged_responses_are_refused(make_lm, responses):
    with pytest.raises(ValueError, match="same length"):
        make_lm().log_prob(["a", "a"], responses)


def test_an_adapter_comes_back_from_disk_and_another_shape_does_not(trained_lm, make_lm, tmp_path):
    trained = trained_lm()
    trained.save_adapter(tmp_path)
    fresh = make_lm(lora=LoRA(rank=4, seed=9))
    fresh.load_adapter(tmp_path)
    assert fresh.fingerprint == trained.fingerprint
    with pytest.raises(ValueError, match="does not fit"):
        make_lm(lora=LoRA(rank=8)).load_adapter(tmp_path)
    with pytest.raises(ValueError, match="holds no adapter"):
        fresh.load_adapter(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no adapter; make it with"):
        make_lm().save_adapter(tmp_path)


def test_an_adapter_on_the_last_layers_touches_no_other(make_lm):
    lm = make_lm(lora=LoRA(rank=2, layers=1))
    names = [n for n, p in lm.module.named_parameters() if p.requires_grad]
    assert names
    assert all(".layers.2." in name for name in names)
    with pytest.raises(ValueError, match="this model has 3"):
        make_lm(lora=LoRA(layers=4))


def test_adapters_are_float32_over_a_bfloat16_body(make_lm):
    lm = make_lm(lora=LoRA(rank=2), dtype="bfloat16")
    types = {p.requires_grad: p.dtype for p in lm.module.parameters()}
    assert types == {True: torch.float32, False: torch.bfloat16}
    assert lm.head.weight.dtype == torch.float32
    responses = lm.sample(["the film is"], 4, rng())
    exact = make_lm(lora=LoRA(rank=2)).log_prob(["the film is"], responses)
    # bfloat16 keeps eight bits: a percent of a logit a token
    np.testing.assert_allclose(lm.log_prob(["the film is"], responses), exact, atol=1.0)


def test_another_sampling_law_shares_the_weights(make_lm):
    lm = make_lm()
    cold = lm.with_sampling(Sampling(temperature=0.1, max_new_tokens=2))
    assert cold.module is lm.module
    assert cold.sampling.temperature == 0.1
    assert all(len(r.token_ids) <= 2 for r in cold.sample(["a"], 9, rng())[0])


def test_a_folder_without_a_model_is_refused(tmp_path):
    from infalign.policies import CausalLM

    with pytest.raises(ValueError, match="no causal language model could be loaded"):
        CausalLM.from_pretrained(tmp_path, Sampling())


def test_a_saved_model_loads_from_its_folder(make_lm, tmp_path):
    from infalign.policies import CausalLM

    lm = make_lm()
    lm.module.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = CausalLM.from_pretrained(tmp_path, lm.sampling, dtype="float32")
    assert loaded.name == tmp_path.name
    assert loaded.sample(["a"], 3, rng()) == lm.sample(["a"], 3, rng())
    again = CausalLM.from_pretrained(tmp_path, lm.sampling, dtype="float32")
    assert loaded.fingerprint == again.fingerprint
