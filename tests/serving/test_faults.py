"""What goes wrong, before and behind the server, and what a client is told of it."""

import asyncio
import json
import logging
import re
import socket
import time

import openai
import pytest
from starlette.responses import JSONResponse, Response

from infalign.serving.running import Redacting
from upstreams import KEY, MODEL, Counting, asked, got, posted

CHAT = "/v1/chat/completions"


def body(**further):
    return {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], **further}


def said(status, message="boom", **headers):
    return lambda place: JSONResponse({"error": {"message": message}}, status, headers=headers)


# --- upstream ---

FAULTS = {
    "bad request": (said(400, "temperature is too high"), 400, "temperature is too high"),
    "no such model": (said(404, "no model"), 404, "no model"),
    "unprocessable": (said(422, "what?"), 422, "what\\?"),
    "busy": (said(429, "slow down", **{"retry-after": "17"}), 429, "slow down"),
    "our key": (said(401, "Incorrect API key provided: sk-up"), 502, "refuses this server's key"),
    "forbidden": (said(403, "no"), 502, "refuses this server's key"),
    "broken": (said(500, "out of memory"), 502, r"failed \(status 500\)"),
    "unavailable": (said(503, "loading"), 502, r"failed \(status 503\)"),
    "gateway timeout": (said(504, "late"), 504, "in time"),
    "no JSON": (lambda place: Response(b'{"choices": [{"ind'), 502, "malformed"),
    "too deep": (lambda place: Response(b"[" * 100_000), 502, "malformed"),
    "no choices": (lambda place: JSONResponse({"choices": []}), 502, "malformed"),
    "a list": (lambda place: JSONResponse([1]), 502, "malformed"),
    "no text": (
        lambda place: JSONResponse({"choices": [{"index": 0, "finish_reason": "stop"}]}),
        502,
        "malformed",
    ),
    "half a character": (
        lambda place: Response(
            b'{"choices": [{"index": 0, "finish_reason": "stop", '
            b'"message": {"content": "\\ud800"}}]}'
        ),
        502,
        "malformed",
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_fault_of_the_upstream_is_told(fronted, fault, is_stream):
    answer, status, message = fault
    front = fronted(n=1, upstream=Counting(fault=answer))
    with pytest.raises(openai.APIStatusError, match=message) as raised:
        asked(front.client(), stream=is_stream)
    assert raised.value.status_code == status
    assert "sk-up" not in raised.value.response.text
    if status == 429:
        assert raised.value.response.headers["retry-after"] == "17"


def test_a_fault_now_and_then_is_asked_again(fronted):
    upstream = Counting(fault=lambda place: said(500)(place) if place % 3 == 0 else None)
    front = fronted(n=6, n_per_request=1, upstream=upstream, connection={"retries": 4})
    assert asked(front.client()).infalign["candidates"] == 6


def test_a_silent_upstream_is_a_timeout(fronted):
    front = fronted(upstream=Counting(seconds=20.0), connection={"read_timeout": 0.3})
    start = time.monotonic()
    with pytest.raises(openai.InternalServerError, match="did not answer in time") as raised:
        asked(front.client())
    assert raised.value.status_code == 504
    assert time.monotonic() - start < 10


def test_an_answer_has_a_deadline(fronted):
    front = fronted(upstream=Counting(seconds=20.0), limits={"seconds": 0.3})
    with pytest.raises(openai.InternalServerError, match=r"no answer was found within 0\.3 s") as e:
        asked(front.client())
    assert e.value.status_code == 504


def test_an_upstream_that_dies_is_told_and_one_that_is_back_is_asked(fronted):
    """Dying: the connection ends amid an answer."""

    class Dying(Counting):
        def answer(self, given, kind, place):
            if place >= 1:
                return super().answer(given, kind, place)
            return Response(b'{"choices": [', headers={"content-length": "5000"})

    front = fronted(n=2, upstream=Dying())
    with pytest.raises(openai.InternalServerError, match="cannot be reached") as raised:
        asked(front.client())
    assert raised.value.status_code == 502
    assert asked(front.client()).infalign["candidates"] == 2


def test_an_upstream_that_is_gone_is_not_ready(fronted):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        front = fronted(n=2, at=(gone,))
        with pytest.raises(openai.InternalServerError, match="cannot be reached") as raised:
            asked(front.client())
        assert raised.value.status_code == 502
        assert got(f"{front.url}/health")[0] == 200
        status, _, text = posted(front, "/ready", None, method="GET")
        assert status == 503
        assert text["status"] == "not ready"


def test_another_upstream_steps_in_for_one_that_is_gone(fronted):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        front = fronted(n=6, n_per_request=1, at=(gone, None))
        assert asked(front.client()).infalign["candidates"] == 6


def test_one_candidate_that_fails_ends_the_others(fronted):
    async def fault(place):
        await asyncio.sleep(0.2)
        return said(500)(place) if place == 3 else None

    upstream = Counting(fault=fault, seconds=20.0)
    front = fronted(n=4, n_per_request=1, upstream=upstream)
    with pytest.raises(openai.InternalServerError):
        asked(front.client())
    deadline = time.monotonic() + 10
    while upstream.now and time.monotonic() < deadline:
        time.sleep(0.01)
    assert upstream.cancelled == 3


def test_a_fault_amid_a_stream_is_an_event_of_it(fronted):
    async def fault(place):
        await asyncio.sleep(0.5)
        return said(500)(place)

    front = fronted(n=1, upstream=Counting(fault=fault), limits={"keep_alive": 0.1})
    stream = asked(front.client(), stream=True)  # it has begun: the status was 200
    with pytest.raises(openai.APIError, match=r"failed \(status 500\)"):
        list(stream)


# --- reward ---


def test_a_reward_that_fails_on_one_request_costs_no_other_its_answer(fronted, caplog):
    def reward(prompts, responses):
        time.sleep(0.05)
        if any("poison" in prompt for prompt in prompts):
            raise RuntimeError("the secret recipe is wrong")
        return [[1.0] * len(row) for row in responses]

    front = fronted(n=2, reward=reward)

    async def everybody():
        async with front.async_client() as client:
            texts = ["poison" if i == 3 else f"q{i}" for i in range(8)]
            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": text}]
                    )
                    for text in texts
                ),
                return_exceptions=True,
            )

    answers = asyncio.run(everybody())
    (failed,) = [answer for answer in answers if isinstance(answer, Exception)]
    assert answers[3] is failed
    assert failed.status_code == 500
    assert "the reward reward failed" in str(failed)
    assert "secret recipe" not in str(failed)
    assert "secret recipe" in caplog.text


def test_a_reward_without_end_does_not_hold_a_client(fronted):
    def slow(prompts, responses):
        time.sleep(2.0)
        return [[1.0] * len(row) for row in responses]

    front = fronted(n=2, reward=slow, limits={"seconds": 0.3})
    with pytest.raises(openai.InternalServerError, match="no answer was found") as raised:
        asked(front.client())
    assert raised.value.status_code == 504


@pytest.mark.parametrize(
    "reward",
    [
        lambda prompts, responses: [[float("nan")] * len(row) for row in responses],
        lambda prompts, responses: [[1.0] for _ in responses],
        lambda prompts, responses: None,
    ],
    ids=["NaN", "too few", "nothing"],
)
def test_rewards_that_are_none_are_refused(fronted, reward):
    with pytest.raises(openai.InternalServerError, match="reward") as raised:
        asked(fronted(n=4, reward=reward).client())
    assert raised.value.status_code == 500
    assert raised.value.body["type"] == "reward_error"


# --- requests ---

BAD = {
    "no JSON": (b'{"model": ', "no JSON|not JSON"),
    "no UTF-8": (b'{"model": "\xff"}', "not JSON"),
    "NaN": (b'{"model": "m", "temperature": NaN}', "NaN is no number"),
    "too deep": (b"[" * 9_000, "not JSON"),
    "a list": ([1], "no object"),
    "no model": ({"messages": [{"role": "user", "content": "x"}]}, "model is missing"),
    "model 5": (body(model=5), "model is missing"),
    "no messages": ({"model": MODEL}, "messages is no list"),
    "empty messages": (body(messages=[]), "empty"),
    "blank": (body(messages=[{"role": "user", "content": " "}]), "empty"),
    "a message 5": (body(messages=[5]), "role and content"),
    "no role": (body(messages=[{"content": "x"}]), "role"),
    "n 0": (body(n=0), "n is 0"),
    "n -1": (body(n=-1), "n is -1"),
    "n true": (body(n=True), "n is true"),
    "n 1.5": (body(n=1.5), "n is 1.5"),
    "n text": (body(n="4"), 'n is "4"'),
    "n too large": (body(n=17), "16 candidates at most"),
    "n huge": (body(n=10**30), "16 candidates at most"),
    "own n too large": (body(infalign={"n": 17}), "16 candidates at most"),
    "own n 0": (body(infalign={"n": 0}), "infalign.n is 0"),
    "unknown own": (body(infalign={"m": 1}), 'infalign holds "m".*n and candidates'),
    "own list": (body(infalign=[1]), r"infalign is \[1\]; an object"),
    "cap 0": (body(max_tokens=0), "max_tokens is 0"),
    "cap -5": (body(max_completion_tokens=-5), "max_completion_tokens is -5"),
    "seed text": (body(seed="x"), "seed"),
    "stream text": (body(stream="yes"), 'stream is "yes"'),
    "tools": (body(tools=[{"type": "function"}]), "sees text only"),
    "best_of": (body(best_of=4), "best_of"),
    "lone surrogate": (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', ""),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_request_is_told_what_is_wrong_with_it(front, bad):
    given, message = bad
    status, _, answer = posted(front, CHAT, given)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert re.search(message, answer["error"]["message"])
    assert front.upstream.bodies == []


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], 5, None, "", [["a"]]])
def test_a_completion_has_one_prompt_of_text(front, prompt):
    status, _, answer = posted(front, "/v1/completions", {"model": MODEL, "prompt": prompt})
    assert status == 400
    assert answer["error"]["param"] == "prompt"


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_a_body_that_is_too_long_is_refused(front, is_declared):
    long = json.dumps(body(padding="x" * 20_000)).encode()
    given = long if is_declared else iter([long[:9000], long[9000:]])
    headers = {} if is_declared else {"transfer-encoding": "chunked"}
    status, _, answer = posted(front, CHAT, given, headers=headers)
    assert status == 413
    assert "longer than 10000 bytes" in answer["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", CHAT, 405), ("POST", "/v1/embeddings", 404), ("GET", "/", 404),
])  # fmt: skip
def test_what_is_not_served_is_told_in_the_same_form(front, method, path, status):
    found, _, answer = posted(front, path, None if method == "GET" else {}, method=method)
    assert found == status
    assert answer["error"]["type"] == "invalid_request_error"


# --- keys ---


def test_a_key_is_asked_for_where_one_is_configured(fronted, monkeypatch):
    monkeypatch.setenv("FRONT_KEYS", "sk-one, sk-two")
    front = fronted(n=2, key="sk-two", key_env="FRONT_KEYS")
    assert asked(front.client()).infalign["candidates"] == 2
    assert asked(front.client("sk-one")).infalign["candidates"] == 2
    for wrong in ("sk-three", "sk-on", "sk-one, sk-two", "sk-öne"):
        status, headers, answer = posted(front, CHAT, body(), key=wrong.encode().decode("latin-1"))
        assert status == 401, wrong
        assert answer["error"]["code"] == "invalid_api_key"
        assert headers["www-authenticate"] == "Bearer"
        assert wrong not in json.dumps(answer)
    with pytest.raises(openai.AuthenticationError):
        front.client("sk-wrong").models.list()
    assert posted(front, CHAT, b"x" * 100, key="sk-wrong")[0] == 401  # asked before anything else
    assert got(f"{front.url}/health")[0] == 200  # probes have no key
    assert len(front.upstream.bodies) == 2


def test_keys_go_where_they_belong_and_nowhere_else(fronted, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("FRONT_KEYS", "sk-client-secret")
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    seen = []

    class Recording(Counting):
        def knows(self, request):
            seen.append(request.headers.get("authorization"))
            return super().knows(request)

    upstream = Recording(key=KEY)
    connection = {"api_key_env": "UPSTREAM_KEY"}
    options = {"key": "sk-client-secret", "key_env": "FRONT_KEYS", "connection": connection}
    front = fronted(n=2, upstream=upstream, **options)
    asked(front.client())
    upstream.key = "sk-another"  # now ours is refused, and repeated in the refusal
    with pytest.raises(openai.InternalServerError) as raised:
        asked(front.client())
    upstream.key, upstream.fault = KEY, said(400, f"no, {KEY}, no")
    with pytest.raises(openai.BadRequestError, match=r"no, \*\*\*, no") as told:
        asked(front.client())
    posted(front, CHAT + "?api_key=sk-client-secret", body())
    posted(front, CHAT, body(), key="sk-wrong-secret")
    assert set(seen) == {f"Bearer {KEY}"}  # never the client's
    assert "POST /v1/chat/completions 200" in caplog.text
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore", "openai"))]
    texts = [record.getMessage() for record in ours]
    texts += [raised.value.response.text, told.value.response.text]
    for secret in (KEY, "sk-client-secret", "sk-wrong-secret"):
        assert not [text for text in texts if secret in text]


def test_whatever_is_logged_secrets_are_taken_out():
    try:
        raise ValueError(f"wrong key {KEY}")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", 40, "p", 1, "%s failed", ("sk-2",), info)
    text = Redacting("%(message)s", [KEY, "sk-2"]).format(record)
    assert "wrong key ***" in text
    assert text.startswith("*** failed")
    assert KEY not in text
