"""The official client gets what the procedure chose, and is told what it cost."""

import json

import numpy as np
import openai
import pytest

from infalign.decoding import Draw, MajorityVote, TextProcedure, WeightedVote
from infalign.decoding.text_procedure import Decoded
from infalign.serving import Recipe
from upstreams import MODEL, Counting, asked, got, value_of


def best(body, prompt="Why?"):
    """What best-of-n must answer, from what the upstream was asked."""
    return max(value_of(prompt, b["seed"], i) for b in body for i in range(b.get("n", 1)))


# --- answers ---


def test_the_best_of_the_candidates_comes_back(fronted):
    front = fronted(n=12, n_per_request=5)
    answer = asked(front.client(), seed=7, temperature=0.5)
    assert len({body["seed"] for body in front.upstream.bodies}) == 3  # no seed twice
    assert sorted(body["n"] for body in front.upstream.bodies) == [2, 5, 5]
    assert all(body["temperature"] == 0.5 for body in front.upstream.bodies)
    chosen = best(front.upstream.bodies)
    assert answer.choices[0].message.content == f"Why?={chosen}"
    assert answer.model == MODEL
    assert answer.infalign["reward"] == chosen
    assert answer.infalign["quantile"] == 1.0
    assert answer.infalign["quantile_among"] == "candidates"
    assert answer.infalign["candidates"] == 12


def test_worst_of_n_gets_the_worst(fronted):
    """Negative control: it is the procedure that chooses."""
    front = fronted("worst_of_n", n=4)
    answer = asked(front.client(), seed=7)
    values = [value_of("Why?", front.upstream.bodies[0]["seed"], i) for i in range(4)]
    assert answer.choices[0].message.content == f"Why?={min(values)}" != f"Why?={max(values)}"


def test_usage_counts_all_candidates(fronted):
    front = fronted(n=8, n_per_request=4)
    usage = asked(front.client()).usage
    assert (usage.completion_tokens, usage.prompt_tokens, usage.total_tokens) == (24, 10, 34)


def test_headers_say_what_was_chosen(fronted):
    front = fronted(n=4)
    raw = front.client().chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Why?"}], seed=1
    )
    headers, chosen = raw.headers, best(front.upstream.bodies)
    assert headers["x-infalign-procedure"] == "best-of-4"
    assert headers["x-infalign-candidates"] == "4"
    assert float(headers["x-infalign-reward"]) == chosen
    assert float(headers["x-infalign-quantile"]) == 1.0
    assert len(headers["x-request-id"]) == 32


def test_completions_are_answered_too(fronted):
    front = fronted(n=4)
    answer = front.client().completions.create(model=MODEL, prompt="Why?", seed=3)
    assert answer.choices[0].text == f"Why?={best(front.upstream.bodies)}"
    assert answer.object == "text_completion"


def test_the_same_seed_gives_the_same_answer(fronted):
    client = fronted(Recipe("soft_best_of_n", {"n": 8, "temperature": 0.3}), calibrate=4).client()
    texts = [asked(client, seed=seed).choices[0].message.content for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("several", [False, None], ids=["ignores n", "refuses n"])
def test_an_upstream_that_draws_one_a_request_is_asked_n_times(fronted, several):
    front = fronted(n=4, upstream=Counting(several=several))
    for _ in range(2):
        answer = asked(front.client(), seed=7)
        assert answer.infalign["candidates"] == 4
    bodies = front.upstream.bodies
    assert [body.get("n", 1) for body in bodies].count(4) == 1  # it is learned once
    singles = bodies[-4:]
    assert len({body["seed"] for body in singles}) == 4
    values = [value_of("Why?", body["seed"], 0) for body in singles]
    assert answer.choices[0].message.content == f"Why?={max(values)}"


def test_candidates_are_shown_on_request(fronted):
    answer = asked(fronted(n=3).client(), extra_body={"infalign": {"candidates": True}})
    assert len(answer.infalign["texts"]) == 3
    assert answer.infalign["rewards"] == [float(t.split("=")[1]) for t in answer.infalign["texts"]]


def test_n_can_be_another_within_the_limit(fronted):
    front = fronted(n=4)
    assert asked(front.client(), n=16).infalign["candidates"] == 16
    assert asked(front.client(), n=1).infalign["candidates"] == 4  # what clients send by habit
    one = asked(front.client(), extra_body={"infalign": {"n": 1}})
    assert one.infalign["candidates"] == 1
    assert len(asked(front.client(), n=16).choices) == 1
    with pytest.raises(openai.BadRequestError, match="draws 16 candidates at most"):
        asked(front.client(), n=17)


def test_a_procedure_of_fixed_n_takes_no_other(fronted):
    front = fronted("order_statistic(0, 1, 0)", n=None)
    assert asked(front.client()).infalign["quantile"] == 0.5  # the middle one of three
    with pytest.raises(openai.BadRequestError, match="no n that a request may change"):
        asked(front.client(), n=5)


def test_quantiles_under_a_calibration(fronted):
    front = fronted("rewind_and_repeat(0.5, 4)", n=None, calibrate=6, n_per_request=8)
    answer = asked(front.client(), seed=2)
    assert answer.infalign["quantile_among"] == "reference"
    reference = [value_of("Why?", front.upstream.bodies[0]["seed"], i) for i in range(6)]
    chosen = float(answer.choices[0].message.content.split("=")[1])
    assert answer.infalign["quantile"] == pytest.approx(np.mean(np.array(reference) < chosen))


def test_the_upstreams_own_fields_of_the_choice_are_kept(fronted):
    class Thinking(Counting):
        def answer(self, body, kind, place):
            data = json.loads(super().answer(body, kind, place).body)
            for choice in data["choices"]:
                choice["message"]["reasoning_content"] = "hm"
                choice["token_ids"] = [1, 2]
            return openai_json(data)

    answer = asked(fronted(n=2, upstream=Thinking()).client())
    assert answer.choices[0].message.reasoning_content == "hm"
    assert not hasattr(answer.choices[0], "token_ids")  # nobody asked for them


def openai_json(data):
    from starlette.responses import JSONResponse

    return JSONResponse(data)


def test_text_parts_reach_the_reward_and_the_upstream_sees_them_as_they_are(fronted):
    seen = []

    def reward(prompts, responses):
        seen.extend(prompts)
        return [[0.0] * len(row) for row in responses]

    front = fronted(n=2, reward=reward)
    content = [{"type": "text", "text": "Why?"}]
    client = front.client()
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "Be brief"}, {"role": "user", "content": content}],
    )
    assert seen == ["system: Be brief\nuser: Why?"]
    assert front.upstream.bodies[0]["messages"][1]["content"] == content


# --- streams ---


def test_the_chosen_answer_is_streamed(fronted):
    front = fronted(n=4)
    text = "To be or not"
    pieces = list(asked(front.client(), text, seed=3, stream=True))
    assert len(pieces) > 4
    written = "".join(p.choices[0].delta.content or "" for p in pieces)
    assert written == f"{text}={best(front.upstream.bodies, text)}"
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert pieces[-1].infalign["candidates"] == 4
    assert all(p.usage is None for p in pieces)


def test_a_stream_ends_with_the_usage_if_it_is_asked_for(fronted):
    stream = asked(fronted(n=4).client(), stream=True, stream_options={"include_usage": True})
    *pieces, last = stream
    assert last.choices == []
    assert last.usage.completion_tokens == 12
    assert all(p.usage is None for p in pieces)


def test_completions_are_streamed(fronted):
    front = fronted(n=4)
    stream = front.client().completions.create(model=MODEL, prompt="a b", seed=1, stream=True)
    assert "".join(p.choices[0].text for p in stream) == f"a b={best(front.upstream.bodies, 'a b')}"


def test_a_slow_choice_keeps_the_stream_alive(fronted):
    front = fronted(n=4, upstream=Counting(seconds=1.0), limits={"keep_alive": 0.1})
    raw = front.client().chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Why?"}], stream=True
    )
    text = b"".join(raw.http_response.iter_bytes()).decode()
    assert text.count(": choosing\n\n") >= 3
    assert text.endswith("data: [DONE]\n\n")
    assert len(list(asked(front.client(), stream=True))) > 2  # the client reads over it


# --- procedures of one's own ---


class FirstOfTwo(TextProcedure):
    """Draws twice, one after the other; needs no reward."""

    name = "first of two ✓"
    most = 2
    needs_reward = False

    def steps(self, prompt, rng):
        first = (yield Draw())[0][0]
        second = (yield Draw())[0][0]
        both = (first, second)
        details = {"mean": np.float64(0.5), "bad": float("nan"), "seen": np.arange(2)}
        return Decoded(prompt.id, first.text, 0, both, (float("nan"),) * 2, details=details)


def test_any_procedure_can_be_put_in_front(fronted):
    front = fronted(FirstOfTwo(), reward=None)
    raw = front.client().chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Why?"}], seed=1
    )
    assert raw.headers["x-infalign-procedure"] == "first of two ?"
    assert "x-infalign-reward" not in raw.headers
    answer = raw.parse()
    assert answer.infalign["details"] == {"mean": 0.5, "bad": None, "seen": [0, 1]}
    with pytest.raises(openai.BadRequestError, match="fixed when the server started"):
        asked(front.client(), n=2)


@pytest.mark.parametrize("procedure", [MajorityVote(4), WeightedVote(4, beta=1.0)])
def test_votes_are_served(fronted, procedure):
    answer = asked(fronted(procedure).client(), extra_body={"infalign": {"candidates": True}})
    assert answer.choices[0].message.content in answer.infalign["texts"]


# --- models, health, metrics ---


def test_models_are_the_upstreams(fronted):
    client = fronted().client()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another/one")


def test_a_model_may_be_fixed(fronted):
    client = fronted(n=2, model=MODEL).client()
    answer = client.chat.completions.create(
        model="whatever", messages=[{"role": "user", "content": "Why?"}]
    )
    assert answer.model == MODEL


def test_health_readiness_and_metrics(fronted):
    front = fronted(n=4)
    asked(front.client())
    assert got(f"{front.url}/health") == (200, '{"status":"ok"}')
    assert got(f"{front.url}/ready")[0] == 200
    status, text = got(f"{front.url}/metrics")
    assert status == 200
    assert 'infalign_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0' in text
    assert "infalign_candidates_total 4.0" in text
    assert 'infalign_tokens_total{kind="completion"} 12.0' in text
    assert "infalign_reward_texts_total 4.0" in text
    assert "infalign_answers_in_progress 0.0" in text
