"""What was written is gone on from without being read again: the same answers."""

import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import CausalLM, loading, refill  # noqa: E402
from infalign.policies.kept import Kept  # noqa: E402
from infalign.protocols import Sampling  # noqa: E402

PROMPTS = ["the film is", "a", "it is a lazy excuse", "the film is"]
LAW = Sampling(temperature=0.8, max_new_tokens=12, stop=('"',))


def rng(seed=0):
    return np.random.default_rng(seed)


def chain(lm, steps, seed=0, chains=2, checked=None):
    """Ends rewritten from a random place on, kept or not at random: what a chain asks for."""
    own, draws = rng(seed), rng(seed + 1)
    prompts = [p for p in PROMPTS for _ in range(chains)]
    states = [row[0] for row in lm.sample(prompts, 1, draws)]
    seen = [[y.token_ids for y in states]]
    for step in range(steps):
        begun = [y.token_ids[: own.integers(len(y.token_ids))] for y in states]
        rows = lm.continue_from(prompts, begun, 1, draws)
        states = [row[0] if own.random() < 0.5 else y for row, y in zip(rows, states, strict=True)]
        seen.append([row[0].token_ids for row in rows])
        if checked:
            checked(step)
    return seen


@pytest.mark.parametrize("rows", [3, 50])
@pytest.mark.parametrize("most_bytes", [None, 20_000, 0])
def test_keeping_changes_no_answer(trained_lm, rows, most_bytes):
    """The same uniform numbers; memory for all, for a few, and for nothing."""
    lm = trained_lm(LAW, rows=rows)
    plain = chain(lm, 4)
    with lm.keeping_beginnings(most_bytes):
        assert chain(lm, 4) == plain
        assert chain(lm, 4, seed=5) != plain
    assert lm._kept is None


def test_a_column_short_would_be_seen(trained_lm, monkeypatch):
    """The negative control of the above: the last column of what is kept left out."""
    lm, fill = trained_lm(LAW), Kept.fill
    plain = chain(lm, 4)
    monkeypatch.setattr(Kept, "fill", lambda kept, layers, rows, n: fill(kept, layers, rows, n - 1))
    with lm.keeping_beginnings():
        assert chain(lm, 4) != plain


@pytest.fixture
def spied(trained_lm):
    """A policy, and the tokens its body reads: (rows, width) of each call."""
    lm = trained_lm(LAW)
    reads = []
    lm.body.register_forward_pre_hook(
        lambda body, args, inputs: reads.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    return lm, reads


def test_a_step_reads_its_new_tokens_only(spied):
    """Each row's steps: its new tokens, the first of them drawn from the last token kept."""
    lm, reads = spied
    with lm.keeping_beginnings():
        y = lm.sample(["the film is"], 1, rng(3))[0][0]
        assert len(y.token_ids) > 5
        for start in range(len(y.token_ids)):
            reads.clear()
            ((other,),) = lm.continue_from(["the film is"], [y.token_ids[:start]], 1, rng(start))
            assert reads == [(1, 1)] * (len(other.token_ids) - start)
    reads.clear()
    lm.continue_from(["the film is"], [y.token_ids[:3]], 1, rng())
    context = len(lm.codec.encode("the film is"))
    assert reads[0] == (1, context + 3)  # the negative control: outside, it is read again


def test_samples_of_one_beginning_read_it_once(spied):
    lm, reads = spied
    with lm.keeping_beginnings():
        lm.sample(["the film is", "a", "the film is"], 7, rng())
        ((rows, _),) = [shape for shape in reads if shape[1] > 1]
        assert rows == 2


def test_blocks_go_on_from_the_row_that_was_chosen(spied):
    lm, reads = spied
    with lm.keeping_beginnings():
        begun, blocks = (), 0
        while len(begun) < 10:
            (row,) = lm.continue_from(["a"], [begun], 6, rng(blocks), limit=2)
            begun = next(y.token_ids for y in row if y.finish_reason == "limit")
            blocks += 1
        assert blocks == 5
        assert [shape for shape in reads if shape[1] > 1] == [(1, len(lm.codec.encode("a")))]


def test_memory_is_bounded_and_what_is_not_asked_for_goes(trained_lm):
    lm = trained_lm(LAW)
    with lm.keeping_beginnings(60_000):
        sizes = []

        def look(step):
            (kept,) = lm._kept.values()
            sizes.append(kept.bytes)
            assert kept.bytes == sum(one.bytes for one in kept._oldest_first.values())

        chain(lm, 8, checked=look)
    assert 40_000 < max(sizes) <= 60_000


@pytest.mark.parametrize("beginnings", [20, 80])
def test_a_call_of_many_beginnings_holds_a_portion_of_them(trained_lm, monkeypatch, beginnings):
    """As many bytes at any moment as are to be kept, a portion read, and a row being added."""
    lm, portion = trained_lm(LAW, rows=5), 60
    token = 2 * 3 * 2 * 8 * 4  # keys and values, layers, heads, width, float32
    lengths, of_row = [], Kept.of_row

    def counted(*args, **options):
        found = of_row(*args, **options)
        lengths.append(len(found.tokens))
        weakref.finalize(found, lengths.remove, len(found.tokens))
        peak.append(sum(lengths) * token)
        return found

    begun = [tuple(row) for row in rng().integers(3, 200, (beginnings, 8)).tolist()]
    begun = [one for one in begun if not lm.stop_ids.intersection(one)]
    asked = (["a"] * len(begun), begun, 2)
    plain = lm.continue_from(*asked, rng())
    peak = []
    monkeypatch.setattr(refill, "_PREFILL_TOKENS", portion)
    monkeypatch.setattr(Kept, "of_row", counted)
    with lm.keeping_beginnings(30 * token):
        found = lm.continue_from(*asked, rng())
    for one, other in zip(found, plain, strict=True):
        assert [y.token_ids for y in one] == [y.token_ids for y in other]
    assert 30 * token < max(peak) <= (30 + portion + 13) * token


def test_other_weights_keep_other_beginnings(trained_lm, make_lm, shake):
    """The reference and the adapter in turn, and an adapter that moves within the block."""
    lm, plain = trained_lm(LAW), make_lm(LAW)
    before = chain(lm, 2)
    with lm.keeping_beginnings():
        assert chain(lm, 2) == before
        with lm.reference():
            assert chain(lm, 2) == chain(plain, 2)
        assert chain(lm, 2) == before
        shake(lm, seed=7)
        inside = chain(lm, 2)
        assert len(lm._kept) <= 2
    assert inside == chain(lm, 2)
    assert inside != before


def step(lm, **options):
    """One step of AdamW on a made-up loss."""
    tensors = [t for t in lm.module.parameters() if t.requires_grad]
    for tensor in tensors:
        tensor.grad = torch.ones_like(tensor)
    torch.optim.AdamW(tensors, lr=0.1, **options).step()


@pytest.mark.parametrize("way", ["foreach", "fused", "loaded"])
def test_whatever_moves_the_adapter_is_seen_without_reading_all_of_it(
    trained_lm, monkeypatch, tmp_path, way
):
    lm = trained_lm(LAW)
    step(lm)
    lm.save_adapter(tmp_path)
    step(lm)
    monkeypatch.setattr(loading, "_bytes", None)  # of a hash, at each step
    with lm.keeping_beginnings():
        before = chain(lm, 2)
        lm.load_adapter(tmp_path) if way == "loaded" else step(lm, **{way: True})
        inside = chain(lm, 2)
        assert len(lm._kept) == 1
    assert inside == chain(lm, 2)
    assert inside != before


SMALL = {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 48}
BLOOM = {"hidden_size": 32, "n_layer": 2, "n_head": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "learned positions": ("GPT2", "LMHeadModel", {"n_embd": 32, "n_layer": 3, "n_head": 4}),
    "position-dependent bias": ("Bloom", "ForCausalLM", BLOOM),
    "a window that slides, nothing kept": (
        "Gemma3Text", "ForCausalLM", {**SMALL, **HEADS, "sliding_window": 5},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("family", "kind", "options"), FAMILIES.values(), ids=FAMILIES)
def test_other_families_answer_the_same(family, kind, options, tokenizer):
    import transformers

    model = getattr(transformers, family.removesuffix("Text") + kind)
    config = {"vocab_size": len(tokenizer), "initializer_range": 0.3, "eos_token_id": 2} | options
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = model(getattr(transformers, f"{family}Config")(**config)).eval()
    lm = CausalLM(whole, tokenizer, LAW, dtype="float32")
    plain = chain(lm, 2)
    with lm.keeping_beginnings(), lm.keeping_beginnings():
        assert chain(lm, 2) == plain
        kept = sum(len(one) for one in (lm._kept or {}).values())
    assert (kept == 0) == ("sliding_window" in options)
