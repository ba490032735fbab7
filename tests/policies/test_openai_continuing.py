"""A server that speaks token ids goes on from beginnings; one that speaks text cannot."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("openai")
pytest.importorskip("torch")

from infalign.policies.openai_server import Connection, OpenAIServer
from infalign.protocols import Continuer, Sampling
from servers import token_server

LAW = Sampling(temperature=1.0, max_new_tokens=12, stop=('"',))
PROMPTS = ["the film is", "a", "it is a lazy"]
BEGUN = [(30, 31, 32), (), (40,)]


def rng(seed=0):
    return np.random.default_rng(seed)


def served(policy, url, **options):
    return OpenAIServer("tiny", policy.sampling, Connection((url,)), codec=policy.codec, **options)


@pytest.mark.parametrize("limit", [None, 1, 4])
def test_what_goes_on_is_the_local_policys(make_lm, limit):
    """Prompt and beginning go out as one list of ids; log-probabilities are of the new tokens."""
    policy = make_lm(LAW)
    with token_server(policy) as (url, bodies):
        server = served(policy, url)
        assert isinstance(server, Continuer)
        rows = server.continue_from(PROMPTS, BEGUN, 6, rng(), limit=limit)
    contexts = [(*policy.codec.encode(p), *b) for p, b in zip(PROMPTS, BEGUN, strict=True)]
    assert {tuple(one["prompt"]) for one in bodies} == set(contexts)
    caps = [min(12 - len(b), limit or 12) for b in BEGUN]
    assert {tuple(one["prompt"]): one["max_tokens"] for one in bodies} == dict(
        zip(contexts, caps, strict=True)
    )
    starts = [[len(beginning)] * 6 for beginning in BEGUN]
    expected = policy.differentiable_log_prob(PROMPTS, rows, starts).detach().numpy()
    told = np.array([[response.log_prob for response in row] for row in rows])
    np.testing.assert_allclose(told, expected, atol=1e-4)
    for row, beginning, cap in zip(rows, BEGUN, caps, strict=True):
        for response in row:
            assert response.token_ids[: len(beginning)] == beginning
            new = len(response.token_ids) - len(beginning)
            ended = response.token_ids[-1] in policy.stop_ids
            cut = "length" if len(response.token_ids) == 12 else "limit"
            assert response.finish_reason == ("stop" if ended else cut)
            assert ended or new == cap
    whole = policy.log_prob(PROMPTS, rows)
    assert np.abs(whole - told).max() > 1  # negative control: with the beginning it is another


def test_an_empty_beginning_is_sampling(make_lm):
    policy = make_lm(LAW)
    with token_server(policy) as (url, _):
        server = served(policy, url)
        assert server.continue_from(PROMPTS, [()] * 3, 5, rng()) == server.sample(PROMPTS, 5, rng())


def test_a_server_of_text_is_no_continuer(make_lm):
    policy = make_lm(dataclasses.replace(LAW, stop=("\n",)))
    for options in ({"server": "llama_cpp"}, {"server": "transformers"}, {"server": "openai"}):
        assert not isinstance(served(policy, "http://127.0.0.1:1/v1", **options), Continuer)
    without = OpenAIServer("tiny", LAW, Connection(("http://127.0.0.1:1/v1",)))
    assert not isinstance(without, Continuer)


def test_an_answer_that_breaks_off_is_refused(make_lm):
    policy = make_lm(LAW)

    def shorten(choice):
        choice["token_ids"] = [30]
        choice["finish_reason"] = "length"

    with token_server(policy, change=shorten) as (url, _):
        with pytest.raises(ValueError, match="breaks off"):
            served(policy, url).continue_from(PROMPTS, BEGUN, 2, rng(), limit=4)
        rows = served(policy, url).continue_from(PROMPTS, BEGUN, 2, rng(), limit=1)
    assert rows[1][0].finish_reason == "limit"


def test_beginnings_are_checked_before_anything_is_asked(make_lm):
    policy = make_lm(LAW)
    server = served(policy, "http://127.0.0.1:1/v1")
    end = policy.tokenizer.eos_token_id
    for begun, options, words in (
        ([(5, end)], {}, "has ended"),
        ([(5,) * 12], {}, "length cap of 12"),
        ([(), ()], {}, "1 prompts came with 2"),
        ([()], {"limit": 0}, "limit is 0"),
    ):
        with pytest.raises(ValueError, match=words):
            server.continue_from(["a"], begun, 1, rng(), **options)
