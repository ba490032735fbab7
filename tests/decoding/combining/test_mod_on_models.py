"""Language models combined at decoding time; what they are alone is scored by another path."""

import numpy as np
import pytest

from infalign import BestOfN
from infalign.decoding import decode
from infalign.decoding.combining import mod
from infalign.policies import TabularLM
from infalign.policies.reference_view import ReferenceView
from infalign.prompts import Prompt
from infalign.protocols import Sampling

PROMPTS = ("a tender", "it is")
HALVES = (0.5, 0.5)


@pytest.fixture
def models(make_lm):
    return make_lm(seed=0), make_lm(seed=1)


def test_two_models_write_one_response(models):
    """Scores of what was drawn agree with the log-probabilities it was drawn with, to 1e-4."""
    combined = mod(models, HALVES)
    drawn = combined.sample(PROMPTS, 6, np.random.default_rng(0))
    told = np.array([[one.log_prob for one in row] for row in drawn])
    assert np.abs(combined.log_prob(PROMPTS, drawn) - told).max() <= 1e-4
    alone = mod(models, (1.0, 0.0))
    assert np.abs(alone.log_prob(PROMPTS, drawn) - models[0].log_prob(PROMPTS, drawn)).max() <= 1e-4
    laws = [model.stream(PROMPTS).log_law() for model in models]
    want = sum(laws) / 2
    want -= np.log(np.exp(want).sum(1, keepdims=True))
    assert np.abs(combined.stream(PROMPTS).log_law() - want).max() <= 1e-5


def test_the_sequence_level_knows_ratios_of_responses(models):
    """log π*(y)/π*(y′) is that of Π π_i^w, by the models' own scoring; to 1e-4 nats."""
    combined = mod(models, HALVES, level="sequence", tries=2, rounds=2, pilot=16)
    drawn = combined.sample(PROMPTS, 4, np.random.default_rng(0))
    scores = combined.log_prob(PROMPTS, drawn)
    want = sum(model.log_prob(PROMPTS, drawn) for model in models) / 2
    gaps = scores - want
    assert np.abs(gaps - gaps[:, :1]).max() <= 1e-4
    assert (
        (combined.effective_draws(PROMPTS) > 0) & (combined.effective_draws(PROMPTS) <= 1)
    ).all()


@pytest.mark.parametrize("divergence", ["forward_kl", "jsd", 0.5])
def test_beams_rank_by_the_formula(models, make_lm, divergence):
    reference = make_lm(seed=2)
    combined = mod(models, HALVES, reference=reference, divergence=divergence, level="prefix")
    (row,) = combined.beam(PROMPTS[:1], 4)
    a, b, ref = (np.exp(model.log_prob(PROMPTS[:1], [row])[0]) for model in (*models, reference))
    heights = {
        "forward_kl": 2 / (1 / a + 1 / b),
        "jsd": ref / (np.sqrt((1 + ref / a) * (1 + ref / b)) - 1),
        0.5: ((a**-0.5 + b**-0.5) / 2) ** -2,
    }[divergence]
    assert (np.diff(heights) <= 1e-6 * heights[0]).all()
    assert combined.greedy(PROMPTS)[0].token_ids


def test_a_trained_model_is_realigned_with_its_own_reference(trained_lm):
    """Exponents 2 and −1: half the β. One copy of the weights serves both members."""
    lm = trained_lm()
    reference = ReferenceView(lm)
    again = mod([lm], [1.0], reference=reference, betas=[0.2], beta=0.1)
    law, base = lm.stream(PROMPTS).log_law(), reference.stream(PROMPTS).log_law()
    assert np.abs(law - base).max() > 0.1
    want = 2 * law - base
    want -= np.log(np.exp(want).sum(1, keepdims=True))
    stream = again.stream(PROMPTS)
    assert np.abs(stream.log_law() - want).max() <= 1e-5
    stream.extend([1, 0], [5, 6])
    swapped = lm.stream(PROMPTS[::-1], [(5,), (6,)]).log_law()
    with lm.reference():
        off = lm.stream(PROMPTS[::-1], [(5,), (6,)]).log_law()
    want = 2 * swapped - off
    want -= np.log(np.exp(want).sum(1, keepdims=True))
    assert np.abs(stream.log_law() - want).max() <= 1e-4
    drawn = lm.sample(PROMPTS, 2, np.random.default_rng(0))
    assert (
        np.abs(reference.log_prob(PROMPTS, drawn) - lm.reference_log_prob(PROMPTS, drawn)).max()
        == 0
    )
    assert reference.sample(PROMPTS, 1, np.random.default_rng(0)) != lm.sample(
        PROMPTS, 1, np.random.default_rng(0)
    )
    assert reference.fingerprint != lm.fingerprint
    assert reference.name == f"{lm.name} (reference)"
    assert reference.vocabulary == lm.vocabulary
    (one,) = reference.continue_from(PROMPTS[:1], [(5,)], 1, np.random.default_rng(0))[0]
    assert one.token_ids[0] == 5


def test_best_of_n_runs_on_combined_models(models):
    class Length:
        name = "length"

        def __call__(self, prompts, responses):
            return np.array([[float(len(text)) for text in row] for row in responses])

    combined, rng = mod(models, HALVES), np.random.default_rng(0)
    prompts = [Prompt(str(i), text) for i, text in enumerate(PROMPTS)]
    for answer in decode(combined, prompts, Length(), BestOfN(3), rng=rng):
        assert answer.rewards[answer.index] == max(answer.rewards)


def test_models_that_write_otherwise_are_refused(models, make_lm):
    longer = make_lm(Sampling(temperature=0.8, max_new_tokens=7, stop=('"',)))
    with pytest.raises(ValueError, match="same sampling settings"):
        mod([models[0], longer], HALVES)
    table = TabularLM.random(("a",), ("a", "b"), 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="different vocabularies"):
        mod([models[0], table], HALVES)
    with pytest.raises(TypeError, match="no reference"):
        ReferenceView(table)
