"""The real embedded model and rewards: slow, and fetched at first use."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

from infalign import assets  # noqa: E402
from infalign.policies import CausalLM, ChoiceLM, LoRA  # noqa: E402
from infalign.protocols import Response, Sampling  # noqa: E402
from infalign.rewards import VaderReward, gold_reward, training_reward  # noqa: E402

SAMPLING = Sampling(temperature=0.8, max_new_tokens=12, stop=('"', "\n"))
PARIS = "The capital of France is Paris."
PARIS_NATS = -2.2056
"""Stored once from a float32 run at temperature 0.8."""


@pytest.fixture(scope="module")
def lm():
    folder = assets.asset_folder("smollm2-135m-instruct")
    return CausalLM.from_pretrained(folder, SAMPLING, lora=LoRA(), dtype="float32", threads=1)


def test_a_known_answer_has_its_known_probability(lm):
    chat = lm.render_chat([{"role": "user", "content": "What is the capital of France?"}])
    ids = lm.tokenizer(PARIS, add_special_tokens=False)["input_ids"]
    answer = Response(PARIS, (*ids, lm.tokenizer.eos_token_id))
    assert lm.log_prob([chat], [[answer]])[0, 0] == pytest.approx(PARIS_NATS, abs=2e-3)


def test_sampling_scoring_and_the_reference_agree(lm):
    prompts = assets.embedded_prompts(3, "test")
    responses = lm.sample(prompts, 8, np.random.default_rng(0))
    told = np.array([[r.log_prob for r in row] for row in responses])
    np.testing.assert_allclose(lm.log_prob(prompts, responses), told, atol=2e-3)
    np.testing.assert_allclose(lm.reference_log_prob(prompts, responses), told, atol=2e-3)
    np.testing.assert_allclose(lm.divergence(prompts, responses), 0, atol=1e-5)
    assert all('"' not in r.text for row in responses for r in row)


def test_one_token_answers_put_most_of_the_mass_on_few(lm):
    choice = ChoiceLM(lm, candidates=96)
    masses = choice.law(assets.embedded_prompts(4)).masses
    assert (masses[:, :10].sum(1) > 0.4).all()


def test_the_rewards_agree_with_people_as_recorded():
    """On 150 held-out snippets; a correlation of 0.7 then has a standard error of 0.04."""
    held_out = assets.film_ratings("held-out")
    chosen = slice(0, None, len(held_out.snippets) // 150)
    texts, ratings = held_out.snippets[chosen], held_out.ratings[chosen]
    for reward in (training_reward(), gold_reward()):
        recorded = reward.head.record["held_out_pearson"]
        found = np.corrcoef(reward.rate(texts), ratings)[0, 1]
        assert abs(found - recorded) < 0.12
    lexicon = VaderReward()([""] * len(texts), [[text] for text in texts])[:, 0]
    assert 0.25 < np.corrcoef(lexicon, ratings)[0, 1] < 0.65


def test_a_refit_on_fewer_ratings_comes_close_to_the_shipped_head():
    from infalign.rewards.refit import refit

    (head,) = refit(["minilm-training"], limit=600, say=lambda _: None).values()
    assert 0.48 < head.record["held_out_pearson"] < 0.7


def test_the_ratings_are_divided_without_overlap():
    parts = {part: set(assets.film_ratings(part).snippets) for part in
             ("training", "gold", "held-out")}  # fmt: skip
    everything = assets.film_ratings()
    assert len(everything.snippets) == 10_605
    assert not parts["training"] & parts["gold"]
    assert not parts["held-out"] & (parts["training"] | parts["gold"])
    assert sum(len(assets.film_ratings(part).snippets) for part in parts) == 10_605


def test_the_shipped_openings_are_those_of_the_held_out_ratings():
    assert assets.reviews.make_openings() == assets.reviews._shipped_openings()
