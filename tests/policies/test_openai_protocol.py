"""What is sent to a server and what is made of its answers, without any model behind it."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("openai")
pytest.importorskip("torch")

from infalign.policies.openai_server import DIALECTS, Connection, OpenAIServer
from infalign.policies.openai_server.answers import BadAnswer, OneAtATime, answer_of
from infalign.protocols import Sampling
from servers import _Local, listening, token_server

LAW = Sampling(temperature=0.8, max_new_tokens=6, stop=('"', "us"))
PROMPTS = ["the film is", "a", "it is a lazy"]


def rng(seed=0):
    return np.random.default_rng(seed)


def body(*choices, **usage):
    named = [{"index": i, "finish_reason": "stop"} | choice for i, choice in enumerate(choices)]
    return json.dumps({"choices": named, "usage": usage or None})


# --- answers ---


def test_what_a_server_gives_is_kept():
    text = body(
        {"text": "one", "token_ids": [5, 2], "logprobs": {"token_logprobs": [-1.0, -0.5]}},
        {"text": "", "token_ids": [2], "finish_reason": "length"},
        completion_tokens=3,
        prompt_tokens=7,
    )
    answer = answer_of(text, 2, 6)
    assert answer.prompt_tokens == 7
    assert [choice.text for choice in answer.choices] == ["one", ""]  # an empty answer is one
    assert answer.choices[0].log_prob == -1.5
    assert np.isnan(answer.choices[1].log_prob)
    assert answer.choices[1].finish_reason == "length"


def test_tokens_go_by_either_of_their_names():
    for name in ("token_ids", "response_token_ids"):
        (choice,) = answer_of(body({"text": "a", name: [5, 2]}), 1, 6).choices
        assert choice.token_ids == (5, 2)


def test_choices_are_put_in_order():
    choices = [{"index": i, "text": str(i), "finish_reason": "stop"} for i in (2, 0, 1)]
    answer = answer_of(json.dumps({"choices": choices}), 3, 6)
    assert [choice.text for choice in answer.choices] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("logprobs", "tokens", "known"),
    [
        ({"token_logprobs": [-1.0, -0.5]}, 2, True),
        ({"content": [{"logprob": -1.0}, {"logprob": -0.5}]}, 2, True),
        ({"token_logprobs": [-1.0, -0.5]}, 3, False),  # the end's is missing
        ({"token_logprobs": [-1.0, None]}, 2, False),
        (None, 2, False),
    ],
)
def test_a_sum_over_fewer_tokens_is_no_log_probability(logprobs, tokens, known):
    (choice,) = answer_of(
        body({"text": "a", "logprobs": logprobs}, completion_tokens=tokens), 1, 6
    ).choices
    assert np.isfinite(choice.log_prob) == known


@pytest.mark.parametrize(
    ("text", "n", "message"),
    [
        ("<html>", 1, "not JSON"),
        ("[]", 1, "no list of choices"),
        ('{"choices": [3]}', 1, "no list of choices"),
        (body({"text": "a"}, {"text": "b"}), 3, "2 choices where 3"),
        (body({"text": "a", "index": 1}, {"text": "b", "index": 1}), 2, "numbered"),
        (body({"text": None}), 1, "no text"),
        (body({"text": "a", "finish_reason": "content_filter"}), 1, "content_filter"),
        (body({"text": "a", "finish_reason": None}), 1, "None"),
        (body({"text": "a", "token_ids": [1, "b"]}), 1, "token ids"),
        (body({"text": "a", "token_ids": [1] * 7}), 1, "token ids"),
        (body({"text": "a"}, completion_tokens=11), 1, "counts 11 tokens"),
        # Valid JSON of another kind than the protocol's.
        (body({"text": "a", "index": None}), 1, "numbered"),
        (body({"text": "a", "index": None}, {"text": "b"}), 2, "numbered"),
        (body({"text": "a", "index": "0"}, {"text": "b"}), 2, "numbered"),
        (body({"text": "a"}, {"text": "b", "index": True}), 2, "numbered"),
        (body({"text": ["a"]}), 1, "no text"),
        (body({"text": "a\ud800"}), 1, "surrogate"),
        (body({"text": "a", "finish_reason": ["stop"]}), 1, "reason"),
        (body({"text": "a", "finish_reason": {}}), 1, "reason"),
        (body({"text": "a", "token_ids": 5}), 1, "token ids 5"),
        (body({"text": "a", "token_ids": "52"}), 1, "token ids"),
        (body({"text": "a", "token_ids": [True]}), 1, "token ids"),
        (body({"text": "a", "token_ids": [1.0]}), 1, "token ids"),
        (body({"text": "a", "token_ids": [2**31]}), 1, "token ids"),
        (body({"text": "a", "token_ids": False}), 1, "token ids"),
        (body({"text": "a"}, completion_tokens=True), 1, "completion_tokens is True"),
        (body({"text": "a"}, prompt_tokens=-1), 1, "prompt_tokens is -1"),
        (body({"text": "a"}, prompt_tokens="7"), 1, "prompt_tokens"),
        ("[" * 100_000, 1, "depth"),
        ('{"choices": [{"index": 0, "text": ' + "[" * 100_000, 1, "depth"),
    ],
)
def test_what_is_not_whole_is_no_answer(text, n, message):
    with pytest.raises(BadAnswer, match=message):
        answer_of(text, n, 6)


@pytest.mark.parametrize(
    "value", ["10" + "0" * 399, "-1" + "0" * 400, "3", "NaN", "-Infinity", "1e400", "true", '"-1"']
)
@pytest.mark.parametrize("place", ['{"token_logprobs": [%s]}', '{"content": [{"logprob": %s}]}'])
def test_what_is_no_log_probability_is_no_answer(value, place):
    choice = '{"index": 0, "text": "a", "finish_reason": "stop", "logprobs": ' + place % value
    text = '{"choices": [' + choice + '}], "usage": {"completion_tokens": 1}}'
    with pytest.raises(BadAnswer):
        answer_of(text, 1, 6)
    kept = answer_of(text.replace(value, "-0.25"), 1, 6)  # negative control
    assert kept.choices[0].log_prob == -0.25


def test_rounding_may_lift_a_log_probability_to_certainty():
    text = body({"text": "a", "logprobs": {"token_logprobs": [1e-6]}}, completion_tokens=1)
    assert answer_of(text, 1, 6).choices[0].log_prob == 0.0


def test_one_answer_for_several_is_told_apart():
    with pytest.raises(OneAtATime):
        answer_of(body({"text": "a"}), 3, 6)


# --- token ids ---


def served(policy, url, **options):
    return OpenAIServer("tiny", policy.sampling, Connection((url,)), codec=policy.codec, **options)


def test_prompts_stops_and_answers_are_the_local_policys_tokens(make_lm):
    policy = make_lm(LAW)
    with token_server(policy) as (url, bodies):
        rows = served(policy, url).sample(PROMPTS, 5, rng())
    assert [len(row) for row in rows] == [5] * 3
    policy.codec.checked(rows, LAW.max_new_tokens)
    assert all(response.text == policy.codec.text(response.token_ids) for response in rows[0])
    assert {tuple(one["prompt"]) for one in bodies} == {policy.codec.encode(p) for p in PROMPTS}
    for one in bodies:
        assert set(one["stop_token_ids"]) == policy.codec.stop_ids
        assert "stop" not in one
        assert one["temperature"] == 0.8
        assert DIALECTS["vllm"].whole_vocabulary.items() <= one.items()


def test_how_many_a_request_asks_for_moves_no_other_seed(make_lm):
    policy = make_lm(LAW)
    with token_server(policy) as (url, bodies):
        first = served(policy, url, n_per_request=2).sample(PROMPTS, 5, rng())
        assert sorted(one.get("n", 1) for one in bodies) == sorted([2, 2, 1] * 3)
        again = served(policy, url, n_per_request=2).sample(PROMPTS, 5, rng())
        assert first == again
        singly = served(policy, url, n_per_request=1).sample(PROMPTS, 5, rng())
    assert [row[0] for row in singly] == [row[0] for row in first]
    assert [row[4] for row in singly] == [row[4] for row in first]


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_log_probabilities_before_temperature_count_only_at_one(make_lm, temperature):
    policy = make_lm(dataclasses.replace(LAW, temperature=temperature))
    with token_server(policy) as (url, _):
        rows = served(policy, url).sample(PROMPTS, 3, rng())
        trial = served(policy, url).check(PROMPTS)
    told = np.array([[response.log_prob for response in row] for row in rows])
    assert trial.temperature == 1.0
    assert np.isfinite(trial.reported).all()
    if temperature == 1.0:
        np.testing.assert_allclose(told, policy.log_prob(PROMPTS, rows), atol=1e-4)
    else:
        assert np.isnan(told).all()


def test_whose_log_probabilities_they_are_follows_from_the_server(make_lm):
    policy = make_lm(LAW)
    with token_server(policy, report=policy) as (url, _):  # after temperature, as SGLang's are
        trial = served(policy, url, server="sglang").check(PROMPTS)
        rows = served(policy, url, server="sglang").sample(PROMPTS, 3, rng())
        as_told = served(policy, url, server="sglang", log_probs="model").check(PROMPTS)
    assert trial.temperature == LAW.temperature
    assert as_told.temperature == 1.0
    told = [[response.log_prob for response in row] for row in rows]
    np.testing.assert_allclose(told, policy.log_prob(PROMPTS, rows), atol=1e-4)


def test_a_server_too_old_to_tell_tokens_is_refused(make_lm):
    policy = make_lm(LAW)
    with (
        token_server(policy, lambda choice: choice.pop("token_ids")) as (url, _),
        pytest.raises(ValueError, match=r"tells no token ids .*an older one.*later version"),
    ):
        served(policy, url, server="sglang").check(PROMPTS)


def test_a_law_so_narrow_that_it_repeats_itself_is_not_taken_for_greedy(make_lm):
    policy = make_lm(dataclasses.replace(LAW, temperature=1e-4))
    with token_server(policy) as (url, _):
        trial = served(policy, url).check(PROMPTS)
    assert all(row[0].text == row[1].text for row in trial.responses)


def test_a_prompt_too_long_for_the_server_is_refused_first(make_lm):
    policy = make_lm(LAW, window=256)
    with token_server(policy) as (url, bodies):
        with pytest.raises(ValueError, match=r"context window of 64.*max_model_len"):
            served(policy, url).check(["a", "the film " * 40])
        assert bodies == []


def test_an_unknown_model_is_refused_with_those_served(make_lm):
    policy = make_lm(LAW)
    with token_server(policy) as (url, _):
        other = OpenAIServer("large", LAW, Connection((url,)), codec=policy.codec)
        with pytest.raises(ValueError, match=r"no model large.*served: \['tiny'\]"):
            other.check(PROMPTS)


def test_it_samples_within_a_running_loop(make_lm):
    policy = make_lm(LAW)

    async def notebook(url):
        return served(policy, url).sample(["a"], 2, rng())

    with token_server(policy) as (url, _):
        assert asyncio.run(notebook(url)) == served(policy, url).sample(["a"], 2, rng())


def test_work_is_spread_over_servers_a_prompt_on_one_of_them(make_lm):
    policy = make_lm(LAW)
    with token_server(policy) as (one, ones), token_server(policy) as (two, twos):
        both = OpenAIServer(
            "tiny", LAW, Connection((one, two)), codec=policy.codec, n_per_request=2
        )
        rows = both.sample(PROMPTS, 4, rng())
        assert rows == served(policy, one, n_per_request=2).sample(PROMPTS, 4, rng())
    asked = {tuple(body["prompt"]) for body in twos}
    assert asked == {policy.codec.encode(PROMPTS[1])}
    assert len(twos) == 2
    assert len(ones) == 4 + 6


# --- keys, chat ---


@pytest.fixture
def guarded():
    """A chat server that wants a key, and what it was sent."""
    sent = []

    class Handler(_Local):
        def do_GET(self):
            self.reply(200 if self.known() else 401, {"data": []})

        def do_POST(self):
            request = json.loads(self.read_body())
            sent.append(request | {"path": self.path})
            if not self.known():
                return self.reply(401, {"error": "bad key"})
            choices = [
                {
                    "index": i,
                    "message": {"role": "assistant", "content": f"{request['seed']} {i}"},
                    "finish_reason": "stop",
                }
                for i in range(request.get("n", 1))
            ]
            return self.reply(200, {"choices": choices})

        def known(self):
            return self.headers.get("authorization") == "Bearer s3cret"

    with listening(Handler) as url:
        yield url, sent


def test_a_key_is_read_from_the_environment_and_kept_nowhere(guarded, monkeypatch):
    url, _ = guarded
    chat = OpenAIServer(
        "big", Sampling(), Connection((url,), "SERVER_KEY"), api="chat", server="openai"
    )
    monkeypatch.delenv("SERVER_KEY", raising=False)
    with pytest.raises(ValueError, match="SERVER_KEY, which is not set"):
        chat.sample(["a"], 1, rng())
    monkeypatch.setenv("SERVER_KEY", "wrong")
    with pytest.raises(PermissionError, match=r"refuses the key.*api_key_env") as refusal:
        chat.check(["a"])
    assert "wrong" not in str(refusal.value)
    before = chat.fingerprint
    monkeypatch.setenv("SERVER_KEY", "s3cret")
    chat.check(["a", "b"])
    assert chat.fingerprint == before
    assert "s3cret" not in repr(vars(chat))


def test_a_key_meant_for_another_service_is_not_sent(guarded, monkeypatch):
    url, _ = guarded
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")  # which this server would take
    chat = OpenAIServer("big", Sampling(), Connection((url,)), api="chat", server="openai")
    with pytest.raises(PermissionError):
        chat.sample(["a"], 1, rng())


def test_chats_go_out_as_messages_and_their_text_says_which(guarded, monkeypatch):
    url, sent = guarded
    monkeypatch.setenv("SERVER_KEY", "s3cret")
    connection = Connection((url,), "SERVER_KEY")
    chat = OpenAIServer("big", Sampling(), connection, api="chat", server="openai")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    text = chat.render_chat(turns)
    assert text == chat.render_chat([dict(reversed(turn.items())) for turn in turns])
    chat.sample([text, "Why?", '["x"]'], 1, rng())
    messages = [request["messages"] for request in sent]
    assert turns in messages
    assert [{"role": "user", "content": "Why?"}] in messages
    assert [{"role": "user", "content": '["x"]'}] in messages
    assert all(request["path"] == "/v1/chat/completions" for request in sent)


# --- settings ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_urls": ()}, "at least one"),
        ({"base_urls": ("host:8000",)}, "http://host:port/v1"),
        ({"base_urls": ("http://me:s3cret@host/v1",)}, "holds a user"),
        ({"base_urls": ("http://host/v1?key=s3cret",)}, r"base_urls\[0\] holds .* key"),
        ({"base_urls": ("http://127.0.0.1:99999/v1",)}, "port"),
        ({"api_key_env": "sk-s3cret"}, "api_key_env is no name"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"patience": -1.0}, "patience is -1"),
        ({"read_timeout": 0.0}, "must be > 0"),
    ],
)
def test_connections_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as refusal:
        Connection(**options)
    assert "s3cret" not in str(refusal.value)


def test_servers_that_cannot_work_are_refused(make_lm):
    with pytest.raises(ValueError, match="server is 'ollama'"):
        OpenAIServer("m", LAW, server="ollama")
    with pytest.raises(ValueError, match="api is chat"):
        OpenAIServer("m", LAW, api="chat", codec=make_lm(LAW).codec)
    with pytest.raises(ValueError, match="k is 0"):
        OpenAIServer("m", LAW).sample(["a"], 0, rng())


def test_the_fingerprint_follows_what_a_client_can_know():
    base = OpenAIServer("m", LAW)
    assert base.fingerprint == OpenAIServer("m", LAW, Connection(("http://other/v1",))).fingerprint
    others = [
        OpenAIServer("n", LAW),
        OpenAIServer("m", LAW, revision="2"),
        OpenAIServer("m", LAW, api="chat"),
        OpenAIServer("m", LAW, server="openai"),
        OpenAIServer("m", LAW, extra_body={"lora": "x"}),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 6
