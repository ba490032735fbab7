"""A tiny random BERT: what it draws is what its own conditionals say, in random order."""

import itertools

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from infalign.decoding import decode  # noqa: E402
from infalign.decoding.mcmc import MaskResample, mcmc  # noqa: E402
from infalign.policies import MaskedLM  # noqa: E402
from infalign.prompts import Prompt  # noqa: E402
from infalign.protocols import Continuer, Redrawer  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "blue", "what", "now"]
COLOURS = (5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def make():
    """Makes masked models of five words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
        initializer_range=0.4,
    )

    def made(length=2, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return MaskedLM(BertForMaskedLM(config), tokenizer, length, **options)

    return made


def plain_law(lm, prompt, row, site):
    """The law of one site by the Hugging Face model alone, without padding. Float32."""
    words = [WORDS.index(word) for word in prompt.split()]
    masked = [4 if t is None else t for t in row]
    ids = [2, *words, 3, *masked, 3] if words else [2, *masked, 3]
    kinds = [0] * (len(words) + 2) + [1] * (len(row) + 1) if words else [0] * len(ids)
    with torch.no_grad():
        out = lm.module(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([kinds]))
    place = len(words) + 2 + site if words else 1 + site
    logits = out.logits[0, place].double() / lm.sampling.temperature
    logits[:5] = -torch.inf
    return torch.softmax(logits, -1).numpy()


@pytest.mark.parametrize("prompt", ["what now", ""])
def test_the_law_of_a_site_is_the_models(make, prompt):
    lm = make(temperature=0.7)
    for row in ((None, 6), (None, None), (7, None)):
        law = np.exp(lm.log_law(prompt, row))
        for site in (i for i, t in enumerate(row) if t is None):
            np.testing.assert_allclose(law[site], plain_law(lm, prompt, row, site), atol=1e-5)


def test_rows_of_different_prompts_are_read_as_alone(make):
    """Padding changes nothing."""
    lm = make()
    contexts = [lm._context(prompt) for prompt in ("what", "what now red green blue")]
    laws = lm._log_laws(contexts, [[None, 6], [5, None]], np.array([[0, 1], [0, 1]]))
    np.testing.assert_allclose(laws[0], lm.log_law("what", (None, 6)), atol=1e-5)
    np.testing.assert_allclose(laws[1], lm.log_law("what now red green blue", (5, None)), atol=1e-5)


def test_only_the_site_that_is_drawn_is_given_logits(make, monkeypatch):
    """Not one for every place of the prompt; a head that cannot be narrowed answers the same."""
    lm, seen = make(4, rows=3), []
    head = lm.module.get_output_embeddings()
    watch = head.register_forward_hook(lambda *given: seen.append(tuple(given[2].shape)))
    drawn = lm.sample(["what now", "now"], 2, np.random.default_rng(0))
    watch.remove()
    assert seen == [(3, 1, 10)] * 4 + [(1, 1, 10)] * 4
    monkeypatch.setattr(lm.module, "get_output_embeddings", lambda: None)
    again = lm.sample(["what now", "now"], 2, np.random.default_rng(0))
    for one, other in zip(drawn, again, strict=True):
        assert [r.token_ids for r in one] == [r.token_ids for r in other]
        np.testing.assert_allclose(
            [r.log_prob for r in one], [r.log_prob for r in other], atol=1e-5
        )


def random_order_law(lm, prompt, length):
    """π(y): the mean over orders of the product of conditionals, by enumeration."""
    law = {}
    for ids in itertools.product(COLOURS, repeat=length):
        chances = []
        for order in itertools.permutations(range(length)):
            row, chance = [None] * length, 1.0
            for site in order:
                chance *= plain_law(lm, prompt, row, site)[ids[site]]
                row[site] = ids[site]
            chances.append(chance)
        law[ids] = np.mean(chances)
    return law


def test_samples_follow_the_random_order_law(make):
    """Pearson's χ² of 5,000 samples over 25 responses; false alarm 1e-3.

    Negative control: the law of one fixed order is rejected.
    """
    lm = make()
    law = random_order_law(lm, "what now", 2)
    assert sum(law.values()) == pytest.approx(1, abs=1e-6)
    [drawn] = lm.sample(["what now"], 5000, np.random.default_rng(0))
    ids = [response.token_ids for response in drawn]
    counts = np.array([ids.count(y) for y in law])
    expected = np.array(list(law.values()))
    assert stats.chisquare(counts, 5000 * expected / expected.sum()).pvalue > 1e-3
    left = {y: plain_law(lm, "what now", [None, None], 0)[y[0]] for y in law}
    fixed = {y: left[y] * plain_law(lm, "what now", [y[0], None], 1)[y[1]] for y in law}
    fixed = np.array(list(fixed.values()))
    assert stats.chisquare(counts, 5000 * fixed / fixed.sum()).pvalue < 1e-3


def test_redrawing_keeps_what_is_left(make):
    lm = make(4)
    erased = [(5, None, None, 6), (None, 7, 8, 9)]
    rows = lm.redraw(["what", "now"], erased, 6, np.random.default_rng(0))
    for row, gaps in zip(rows, erased, strict=True):
        assert len(row) == 6
        for response in row:
            assert len(response.token_ids) == 4
            assert all(a in (None, b) for a, b in zip(gaps, response.token_ids, strict=True))
            assert response.text.split() == [WORDS[t] for t in response.token_ids]
    one = rows[1][0]
    law = lm.log_law("now", erased[1])
    assert one.log_prob == pytest.approx(law[0, one.token_ids[0]], abs=1e-5)


def test_it_redraws_and_does_not_continue(make):
    lm = make()
    assert isinstance(lm, Redrawer)
    assert not isinstance(lm, Continuer)
    assert lm.fingerprint == make().fingerprint
    assert lm.fingerprint != make(3).fingerprint


def test_a_chain_on_it(make):
    """Same seed, same chain; only so many sites change; the reward goes up."""

    class Red:
        name = "red"

        def __call__(self, prompts, responses):
            return np.array([[float(text.count("red")) for text in row] for row in responses])

    lm, prompts = make(6), [Prompt.from_text("what"), Prompt.from_text("what now")]
    procedure = mcmc(0.2, 30, mask=2, tries=3, chains=4)
    assert procedure.resampler == MaskResample(2)
    runs = [decode(lm, prompts, Red(), procedure, rng=np.random.default_rng(0)) for _ in range(2)]
    assert [one.text for one in runs[0]] == [one.text for one in runs[1]]
    for one in runs[0]:
        rewards = np.array(one.rewards).reshape(4, 31)
        assert rewards[:, -5:].mean() > rewards[:, 0].mean() + 0.5
        chain = one.candidates[:31]
        for a, b in itertools.pairwise(chain):
            assert sum(s != t for s, t in zip(a.token_ids, b.token_ids, strict=True)) <= 2


def test_bad_input_is_refused(make):
    lm = make(4)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="4 tokens are needed"):
        lm.redraw(["what"], [(5, None)], 1, rng)
    with pytest.raises(ValueError, match="no special ones"):
        lm.redraw(["what"], [(4, None, None, None)], 1, rng)
    with pytest.raises(ValueError, match="holds the mask token"):
        lm.sample(["what [MASK]"], 1, rng)
    with pytest.raises(ValueError, match="more than the context window of 16"):
        lm.sample(["what now " * 6], 1, rng)
    for length in (0, True, 2.5):
        with pytest.raises(ValueError, match="length is"):
            make(length)
    for k in (0, True, 1.5):
        with pytest.raises(ValueError, match=f"k is {k}"):
            lm.sample(["what"], k, rng)
    with pytest.raises(ValueError, match="rows is 0"):
        make(rows=0)
    with pytest.raises(ValueError, match="temperature is 0"):
        make(temperature=0)


def test_a_model_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no masked language model could be loaded"):
        MaskedLM.from_pretrained(tmp_path, 4)


def test_it_is_stored_and_loaded(make, tmp_path):
    lm = make()
    lm.module.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    again = MaskedLM.from_pretrained(tmp_path, 2)
    drawn = [m.sample(["what"], 5, np.random.default_rng(0)) for m in (lm, again)]
    assert [r.text for r in drawn[0][0]] == [r.text for r in drawn[1][0]]


def test_a_model_without_a_mask_is_refused(make, tokenizer):
    with pytest.raises(ValueError, match="has no mask token"):
        MaskedLM(make().module, tokenizer, 2)
