"""An engine that would read stored responses as other texts is refused, or set right."""

import runpy

import numpy as np
import pytest
from engines import llama2

from infalign.integrations import openrlhf, verl
from infalign.integrations.decoding import Sampled, drops_space
from infalign.integrations.engine_files import Batches
from infalign.policies.tokens import TextCodec
from infalign.quantile.transforms import Identity

ONE = Batches(prompts=1)


@pytest.fixture
def codec():
    tokenizer = llama2()
    return TextCodec(tokenizer, ["\n"], [tokenizer.eos_token_id])


@pytest.fixture
def frozen_of(freeze_at, prompts, tmp_path):
    def make(codec):
        marks = {"end_marks": codec.end_marks, "special_tokens": codec.special_tokens}
        texts = {p.id: p.text for p in prompts}
        return freeze_at(tmp_path / "frozen", texts, np.ones((3, 6)), Identity(), **marks)

    return make


def sampled(codec, prompt, said, skipped=0):
    ids = [*codec.tokenizer(said, add_special_tokens=False)["input_ids"][skipped:], 2]
    return Sampled(prompt.id, ids, codec.text(ids))


class Tidy:
    """A tokenizer with another rule for spaces, whatever it is asked to do about them."""

    def __init__(self, tokenizer, rule):
        self.tokenizer, self.rule = tokenizer, rule

    def __call__(self, text, add_special_tokens):
        return self.tokenizer(text, add_special_tokens=add_special_tokens)

    def decode(self, ids, skip_special_tokens):
        return self.rule(self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens))


def test_the_lost_space_is_what_openrlhf_would_score(codec, frozen_of, prompts, tmp_path):
    """With stored responses to look at, and without: the negative control."""
    prompt, frozen = prompts[0], frozen_of(codec)
    one = sampled(codec, prompt, "Yes.")
    context = codec.context_text(prompt.text)
    query = codec.tokenizer.decode([*codec.encode(prompt.text), *one.token_ids])
    assert query == f"{context} Yes.</s>"
    assert one.text == "Yes."
    read = {}
    for name, given in (("seen", [one]), ("unseen", [])):
        folder = openrlhf.write_openrlhf(
            frozen, prompts, tmp_path / name, batches=ONE, context=codec.context_text,
            tokenizer=codec.tokenizer, sampled=given,
        )  # fmt: skip
        reward = runpy.run_path(str(folder / "reward.py"))["reward_func"]
        read[name] = reward.frozen.text_of(reward.completion(query, context))
    assert read == {"seen": "Yes.", "unseen": " Yes."}


def test_it_is_found_where_no_response_begins_with_a_space(codec, frozen_of, prompts):
    prompt_ids = codec.encode(prompts[0].text)
    one = sampled(codec, prompts[0], "Yes. a", skipped=1)
    assert codec.tokenizer.convert_ids_to_tokens(one.token_ids[0]) == "Y"
    assert drops_space(codec.tokenizer, prompt_ids, [one])
    assert not drops_space(codec.tokenizer, prompt_ids, [sampled(codec, prompts[0], "Y", 1)])


def test_special_tokens_before_the_space_are_seen_through(codec, frozen_of):
    reward = openrlhf.load(frozen_of(codec), space_dropped=True)
    for completion in (" Yes.</s>", "<s> Yes.", "Yes.</s>more"):
        assert reward.completion(f"Q{completion}", "Q") == "Yes."
    assert reward.completion("Q  Yes.", "Q") == " Yes."  # one is dropped, not two


@pytest.mark.parametrize(
    ("rule", "engines"),
    [
        (str, ()),
        (lambda text: text.replace(" .", "."), ("verl", "OpenRLHF")),
        (lambda text: text if text[:1] == "<" else text.replace("  ", " "), ("verl",)),
        (lambda text: text.replace("  ", " ") if text[:1] == "<" else text, ("OpenRLHF",)),
    ],
    ids=["none", "tidied", "when alone", "when together"],
)
def test_other_texts_are_refused(codec, frozen_of, prompts, tmp_path, rule, engines):
    frozen, tokenizer = frozen_of(codec), Tidy(codec.tokenizer, rule)
    said = [sampled(codec, p, text) for p in prompts[:1] for text in ("Yes", "a  Yes .")]
    asked = {"batches": ONE, "context": codec.context_text, "sampled": said}
    writers = {"verl": verl.write_verl, "OpenRLHF": openrlhf.write_openrlhf}
    for engine, write in writers.items():
        folder = tmp_path / engine
        if engine not in engines:
            assert write(frozen, prompts[:1], folder, tokenizer=tokenizer, **asked).is_dir()
            continue
        with pytest.raises(ValueError, match=rf"{engine} reads a response .* stored as 'a  Yes \."):
            write(frozen, prompts[:1], folder, tokenizer=tokenizer, **asked)
        assert not folder.exists()


def test_responses_to_prompts_that_are_not_exported_say_nothing(
    codec, frozen_of, prompts, tmp_path
):
    one = sampled(codec, prompts[2], "Yes.")
    folder = openrlhf.write_openrlhf(
        frozen_of(codec), prompts[:1], tmp_path / "o", batches=ONE, context=codec.context_text,
        tokenizer=codec.tokenizer, sampled=[one],
    )  # fmt: skip
    assert "space_dropped" not in (folder / "reward.py").read_text()
