"""A sequence-classification model as a reward, on a tiny random BERT."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from infalign.protocols import Reward  # noqa: E402
from infalign.rewards import ClassifierReward  # noqa: E402

PROMPTS = ["how was it", "and the cast"]
RESPONSES = [["dull", "good"], ["dull", "very good indeed"]]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *" ".join(PROMPTS).split(), "dull", "good"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def model(labels):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        num_labels=labels,
        initializer_range=1.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertForSequenceClassification(config)


def test_the_reward_is_the_label_s_logit_for_the_pair_of_texts(tokenizer):
    three = model(3)
    reward = ClassifierReward(three, tokenizer, label="LABEL_2", batch_size=3)
    assert isinstance(reward, Reward)
    found = reward(PROMPTS, RESPONSES)
    for p, prompt in enumerate(PROMPTS):
        for k, response in enumerate(RESPONSES[p]):
            with torch.no_grad():
                logits = three(**tokenizer(prompt, response, return_tensors="pt")).logits
            assert found[p, k] == pytest.approx(float(logits[0, 2]), abs=1e-5)
    np.testing.assert_array_equal(
        found, ClassifierReward(three, tokenizer, label=2)(PROMPTS, RESPONSES)
    )


def test_a_chat_template_is_used_where_there_is_one(tokenizer):
    import copy

    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    found = ClassifierReward(model(1), chatty)(PROMPTS, RESPONSES)
    ids = tokenizer("how was it dull", return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        assert found[0, 0] == pytest.approx(float(model(1).eval()(**ids).logits[0, 0]), abs=1e-5)


@pytest.mark.parametrize(
    ("label", "reason"),
    [(None, "no label was chosen and the model has 3"), ("good", "'good'"), (3, "label is 3")],
)
def test_an_unclear_label_is_refused(tokenizer, label, reason):
    with pytest.raises(ValueError, match=reason):
        ClassifierReward(model(3), tokenizer, label=label)


def test_texts_beyond_the_window_are_cut_with_a_warning(tokenizer, caplog):
    reward = ClassifierReward(model(1), tokenizer)
    reward(["it"], [["dull " * 50]])
    assert "at most 12 tokens" in caplog.text


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no sequence-classification model could be loaded"):
        ClassifierReward.from_pretrained(str(tmp_path))


def test_a_saved_model_loads_from_its_folder(tokenizer, tmp_path):
    model(1).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = ClassifierReward.from_pretrained(str(tmp_path))
    assert loaded.name == tmp_path.name
    expected = ClassifierReward(model(1), tokenizer)(PROMPTS, RESPONSES)
    np.testing.assert_allclose(loaded(PROMPTS, RESPONSES), expected, atol=1e-5)
