"""The head: draws, log-probabilities, KL and their gradients, against plain softmax."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import next_token  # noqa: E402
from infalign.policies.next_token import Head, draw, draw_next, next_token_statistics  # noqa: E402

HEADS = {
    "plain": {},
    "biased": {"bias": True},
    "scaled": {"scale": 0.3},
    "softcapped": {"softcap": 2.0, "scale": 1.5, "bias": True},
}


def tensor(shape, seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def make_head(bias=False, **options):
    return Head(tensor((50, 8), 0), tensor((50,), 1) if bias else None, **options)


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_statistics_and_gradients_are_those_of_autograd(options, monkeypatch):
    monkeypatch.setattr(next_token, "_SLICE", 5)  # several slices, the last one short
    head, hidden, other = make_head(**options), tensor((12, 8), 2), tensor((12, 8), 3)
    sources = torch.tensor([0, 0, 3, 4, 5, 5, 11])
    targets = torch.tensor([7, 9, 7, 0, 49, 1, 2])
    weights = tensor((7,), 4), tensor((12,), 5)

    def gradient(statistics):
        leaf = hidden.clone().requires_grad_()
        log_probs, kl = statistics(leaf)
        ((weights[0] * log_probs).sum() + (weights[1] * kl).sum()).backward()
        return log_probs.detach(), kl.detach(), leaf.grad

    def plain(leaf):
        law = torch.log_softmax(head.logits(leaf) / 0.7, -1)
        reference = torch.log_softmax(head.logits(other) / 0.7, -1)
        return law[sources, targets], (law.exp() * (law - reference)).sum(-1)

    def ours(leaf):
        return next_token_statistics(leaf, head, 0.7, sources, targets, other)

    for mine, expected in zip(gradient(ours), gradient(plain), strict=True):
        torch.testing.assert_close(mine, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_logits_of_chosen_tokens_are_the_full_ones(options):
    head, hidden = make_head(**options), tensor((3, 8), 2)
    tokens = torch.tensor([[0, 49], [7, 7], [1, 2]])
    torch.testing.assert_close(head.logits(hidden, tokens), head.logits(hidden).gather(1, tokens))


@pytest.mark.parametrize("vocabulary", [2, 255, 256, 257, 1000])
def test_a_draw_inverts_the_cumulative_law(vocabulary):
    """At a grid of uniform numbers: each lands where the float64 cumulative sum says."""
    logits = tensor((3, vocabulary), 0) * 3
    grid = ((torch.arange(400) + 0.5) / 400).double().expand(3, -1).contiguous()
    tokens, log_probs = draw(logits, grid)
    law = torch.log_softmax(logits.double(), -1)
    ends = law.exp().cumsum(-1)
    upper = ends.gather(1, tokens)
    lower = upper - law.exp().gather(1, tokens)
    assert (lower - 1e-6 <= grid).all()
    assert (grid <= upper + 1e-6).all()
    torch.testing.assert_close(log_probs, law.gather(1, tokens), atol=1e-6, rtol=1e-6)


def test_extreme_uniforms_and_impossible_tokens_are_safe():
    """The ends of [0, 1) never draw a token of probability zero."""
    logits = torch.full((1, 600), -float("inf"))
    logits[0, [3, 300, 400]] = torch.tensor([0.0, 1.0, 2.0])
    ends = torch.tensor([[0.0, 1 - 2**-53]], dtype=torch.float64)
    tokens, log_probs = draw(logits, ends)
    assert tokens.tolist() == [[3, 400]]
    assert log_probs.isfinite().all()


@pytest.fixture
def with_units(monkeypatch):
    """As on a CPU with matrix units; one without them takes the same steps, only slower."""
    monkeypatch.setattr(next_token, "_pays_in_bfloat16", lambda: True)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_the_head_of_a_bfloat16_body_is_as_exact_as_float32(stored, with_units):
    """Against float64; a head rounded to bfloat16 would be seen."""
    rng = np.random.default_rng(0)
    weight = torch.from_numpy(rng.normal(size=(600, 576))).to(stored).float()
    hidden = torch.from_numpy(rng.normal(size=(32, 576))).bfloat16()
    exact = hidden.double() @ weight.double().T
    scale = hidden.double().abs() @ weight.double().abs().T
    assert ((Head(weight).logits(hidden) - exact).abs() / scale).max() < 1e-5
    if stored is torch.float32:
        rounded = hidden.double() @ weight.bfloat16().double().T
        assert ((rounded - exact).abs() / scale).max() > 5e-5


@pytest.mark.parametrize(
    ("capabilities", "rows", "products"),
    [
        ({"amx_bf16": True}, 4, 2),
        ({"amx_bf16": True}, 3, 1),
        ({"amx_bf16": False, "avx512_bf16": True}, 4, 1),
        ({}, 4, 1),
    ],
)
def test_two_products_are_made_only_where_they_pay(capabilities, rows, products, monkeypatch):
    """Counted: the factors of each product of states with V tokens' rows."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    next_token._pays_in_bfloat16.cache_clear()
    head, hidden = Head(tensor((50, 8), 0)), tensor((rows, 8), 1).bfloat16()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        head.logits(hidden)
    next_token._pays_in_bfloat16.cache_clear()
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts.get("aten::mm", 0) + counts.get("aten::addmm", 0) == products


def test_precision_of_other_products_is_left_alone(with_units):
    precision = torch.backends.mkldnn.matmul
    before = precision.fp32_precision
    hidden = torch.ones(4, 8, dtype=torch.bfloat16)
    draw_next(Head(torch.randn(20, 8)), hidden, 1.0, torch.full((4, 1), 0.5, dtype=torch.float64))
    assert precision.fp32_precision == before
