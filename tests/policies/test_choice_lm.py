"""One-token answers of a language model: the law written down is the law."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import ChoiceLM, LoRA  # noqa: E402
from infalign.protocols import Policy, Response, Sampling  # noqa: E402

PROMPTS = ["the film is", "a", "the film", "it is a lazy excuse"]


@pytest.fixture
def choice(make_lm, shake):
    lm = make_lm(Sampling(temperature=0.8, max_new_tokens=1), lora=LoRA(rank=4))
    choice = ChoiceLM(lm, candidates=12)
    choice.responses(PROMPTS)
    shake(lm)
    return choice


def plain_laws(choice, prompt):
    """Reference's candidates and both laws, through the whole Hugging Face model."""
    lm = choice._model
    ids = torch.tensor([lm.codec.encode(prompt)])
    with torch.no_grad():
        policy = lm.module(input_ids=ids).logits[0, -1].double() / 0.8
        with lm.module.disable_adapter():
            reference = lm.module(input_ids=ids).logits[0, -1].double() / 0.8
    top = reference.topk(12).indices
    return top.tolist(), torch.softmax(policy[top], 0), torch.softmax(reference[top], 0)


def test_it_is_a_policy(choice):
    assert isinstance(choice, Policy)


def test_laws_are_the_model_restricted_to_the_reference_s_favourites(choice):
    """Also with beginnings shared between prompts, which the packed row computes once."""
    texts = choice.responses(PROMPTS)
    for p, prompt in enumerate(PROMPTS):
        tokens, policy, reference = plain_laws(choice, prompt)
        law = choice.log_law(PROMPTS)[p].exp().detach()
        np.testing.assert_allclose(law, policy, atol=1e-6)
        np.testing.assert_allclose(choice.reference_law(PROMPTS)[p], reference, atol=1e-6)
        assert texts[p] == [choice._model.codec.text((token,)) for token in tokens]
    assert choice.law(PROMPTS).kl(_reference(choice)).min() > 0.01


def _reference(choice):
    with choice.reference():
        return choice.law(PROMPTS)


def test_the_reference_is_the_adapter_switched_off(choice):
    expected = choice.reference_law(PROMPTS)
    np.testing.assert_allclose(_reference(choice).masses, expected, atol=1e-6)


def test_samples_are_scored_as_the_law_says(choice):
    responses = choice.sample(PROMPTS, 50, np.random.default_rng(0))
    law = choice.law(PROMPTS)
    scores = choice.differentiable_scores(PROMPTS, responses)
    for p, row in enumerate(responses):
        for k, response in enumerate(row):
            column = plain_laws(choice, PROMPTS[p])[0].index(response.token_ids[0])
            assert response.log_prob == pytest.approx(np.log(law.masses[p, column]), abs=1e-6)
            assert scores.log_prob[p, k].item() == pytest.approx(response.log_prob, abs=1e-6)
    np.testing.assert_allclose(scores.kl[:, 0].detach(), law.kl(_reference(choice)), atol=1e-5)
    expected = choice.reference_log_prob(PROMPTS, responses)
    np.testing.assert_allclose(scores.reference_log_prob, expected, atol=1e-6)


def test_frequencies_follow_the_law(choice):
    """Each frequency within 5 standard errors: false-alarm rate below 1e-4 for 48 of them."""
    responses = choice.sample(PROMPTS, 5000, np.random.default_rng(1))
    for row, law, prompt in zip(responses, choice.law(PROMPTS).masses, PROMPTS, strict=True):
        tokens = plain_laws(choice, prompt)[0]
        counts = np.array([sum(r.token_ids[0] == t for r in row) for t in tokens])
        assert (np.abs(counts / 5000 - law) < 5 * np.sqrt(law * (1 - law) / 5000)).all()


def test_the_gradient_reaches_the_adapter_and_nothing_else(choice):
    choice.log_law(PROMPTS)[:, 0].sum().backward()
    for parameter in choice.module.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


def test_a_response_that_is_no_candidate_is_refused(choice):
    unlikely = plain_laws(choice, "a")[0]
    foreign = next(i for i in range(300) if i not in unlikely)
    with pytest.raises(ValueError, match="not one of the 12 tokens"):
        choice.log_prob(["a"], [[Response("", (foreign,))]])


@pytest.mark.parametrize("count", [1, 10_000])
def test_a_choice_needs_two_candidates_and_a_vocabulary_that_has_them(make_lm, count):
    with pytest.raises(ValueError, match=f"candidates is {count}"):
        ChoiceLM(make_lm(), count)
