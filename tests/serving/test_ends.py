"""How requests end: what the log and the metrics say of them, and what clients are told."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import sys
import time

import openai
import pytest
from starlette.responses import JSONResponse

from infalign.rewards import FunctionReward
from infalign.serving.finding import Finder
from infalign.serving.gate import Gate
from infalign.serving.metrics import Metrics
from infalign.serving.refusals import Refused
from upstreams import MODEL, Counting, asked, got, posted, worth

CHAT = "/v1/chat/completions"
PROMPT = "A sentence nobody may read in a log"


def streamed(front, text=PROMPT):
    """All events of a stream, as they came."""
    import urllib.request

    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        front.url + CHAT, json.dumps(body).encode(), {"authorization": f"Bearer {front.key}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def accounted(front, caplog):
    """Statuses in the log, and those counted, of chats."""
    deadline = time.monotonic() + 10
    pattern = re.compile(rf"POST {CHAT} (\d+) ([\d.]+) s")
    while not (found := pattern.findall(caplog.text)) and time.monotonic() < deadline:
        time.sleep(0.01)
    text = got(f"{front.url}/metrics")[1]
    counted = re.findall(rf'requests_total{{endpoint="{CHAT}",status="(\d+)"}} (\S+)', text)
    return [status for status, _ in found], counted, float(found[0][1])


# --- streams ---


@pytest.mark.parametrize("fault", [None, 500, 504])
def test_a_slow_stream_is_accounted_for_when_it_ends(fronted, caplog, fault):
    caplog.set_level(logging.INFO)

    async def late(place):
        await asyncio.sleep(0.6)
        return None if fault is None else JSONResponse({"error": {"message": "x"}}, fault)

    front = fronted(n=2, upstream=Counting(fault=late), limits={"keep_alive": 0.1})
    events = streamed(front)
    assert events[-1] == "[DONE]"
    status = {None: "200", 500: "502", 504: "504"}[fault]
    logged, counted, seconds = accounted(front, caplog)
    assert logged == [status]
    assert counted == [(status, "1.0")]
    assert seconds >= 0.6


def test_a_defect_amid_a_stream_is_an_event_of_it(fronted, caplog, monkeypatch):
    caplog.set_level(logging.INFO)

    async def broken(self, asked):
        await asyncio.sleep(0.4)
        raise KeyError("a defect")

    monkeypatch.setattr(Finder, "__call__", broken)
    front = fronted(n=2, limits={"keep_alive": 0.1})
    *_, error, done = streamed(front)
    assert done == "[DONE]"
    assert "its log says why" in json.loads(error)["error"]["message"]
    assert accounted(front, caplog)[:2] == (["500"], [("500", "1.0")])
    assert re.search(r"request [0-9a-f]{32} failed: a defect", caplog.text)


def test_a_client_that_leaves_a_slow_stream_is_accounted_for(fronted, caplog):
    caplog.set_level(logging.INFO)
    front = fronted(n=2, upstream=Counting(seconds=20.0), limits={"keep_alive": 0.1})
    stream = asked(front.client(), stream=True)
    stream.close()
    assert accounted(front, caplog)[:2] == (["499"], [("499", "1.0")])


# --- rewards ---


def nan(prompts, responses):
    return [[float("nan")] * len(row) for row in responses]


def raising(prompts, responses):
    raise RuntimeError("out of luck")


def leaving(prompts, responses):
    sys.exit(3)


def interrupting(prompts, responses):
    raise KeyboardInterrupt


def few(prompts, responses):
    return [[] for _ in responses]


def table(prompts, responses):
    return 5


@pytest.mark.parametrize(
    ("reward", "what"),
    [
        (nan, "it gave nan for a candidate"),
        (raising, "RuntimeError: out of luck"),
        (leaving, "SystemExit: 3"),
        (interrupting, "KeyboardInterrupt"),
        (few, "returned 1 lists of lengths"),
        (table, "no table of numbers"),
    ],
)
@pytest.mark.parametrize("calibrate", [0, 4])
def test_a_reward_that_gives_no_number_is_logged_and_told(fronted, caplog, reward, what, calibrate):
    caplog.set_level(logging.INFO)
    front = fronted(n=2, reward=reward, calibrate=calibrate)
    with pytest.raises(openai.InternalServerError) as raised:
        asked(front.client(), PROMPT)
    told = raised.value.response.json()["error"]["message"]
    name = reward.__name__
    assert told == f"the reward {name} failed on the candidates; the server's log says why."
    (error,) = [r for r in caplog.records if r.levelname == "ERROR" and "infalign" in r.name]
    said = error.getMessage()
    assert f"the reward {name} failed" in said
    assert what in said
    ident = raised.value.response.headers["x-request-id"]
    assert said.startswith(f"request {ident}: ")
    text = logging.Formatter().format(error)
    assert PROMPT[:10] not in text
    assert "run again" not in text
    assert "where a store is used" not in text
    assert posted(front, "/health", None, method="GET")[0] == 200
    assert "infalign_reward_failures_total 1.0" in got(f"{front.url}/metrics")[1]


def test_a_reward_that_exits_once_costs_no_other_request_its_answer(fronted):
    calls = []

    def once(prompts, responses):
        calls.append(prompts)
        if len(calls) <= 2:  # the call, and the look for the culprit
            sys.exit("bye")
        return worth(prompts, responses)

    front = fronted(n=2, reward=once)
    with pytest.raises(openai.InternalServerError):
        asked(front.client())
    assert asked(front.client()).infalign["candidates"] == 2


def test_a_function_that_exits_is_a_failure_of_the_reward():
    with pytest.raises(RuntimeError, match="raised SystemExit: 3 on prompt 0"):
        FunctionReward(leaving)(["Why?"], [["Because."]])


# --- upstream ---


def warnings(caplog, what):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = [r.getMessage() for r in caplog.records if what in r.getMessage()]
        if found:
            return found
        time.sleep(0.01)
    return []


def test_an_upstream_that_is_not_there_is_told_at_the_start(fronted, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
        front = fronted(n=2, at=(gone,))
        (warning,) = warnings(caplog, "requests are taken and fail")
        assert gone in warning
        caplog.clear()
        with pytest.raises(openai.InternalServerError, match=r"reached; ask again later, or tell"):
            asked(front.client())
        assert all(gone in said for said in warnings(caplog, "cannot be reached"))


def test_an_upstream_that_refuses_our_key_is_told_at_the_start(fronted, caplog, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-not-it")
    fronted(n=2, upstream=Counting(key="sk-it"), connection={"api_key_env": "UPSTREAM_KEY"})
    (warning,) = warnings(caplog, "requests are taken and fail")
    assert "refuses our key (status 401)" in warning
    assert "sk-" not in warning


def test_an_upstream_that_is_there_is_not_mentioned(fronted, caplog):
    """Negative control."""
    asked(fronted(n=2).client())
    time.sleep(0.5)
    assert not [r for r in caplog.records if r.levelname == "WARNING" and "infalign" in r.name]


@pytest.mark.parametrize(
    ("answer", "warning", "told"),
    [
        (lambda: JSONResponse({}, 500), "failed with status 500", "ask again later"),
        (lambda: JSONResponse({}, 403), "refuses our key", "tell whoever runs this server"),
        (lambda: JSONResponse({"choices": []}), "is malformed", "Ask again"),
        (lambda: JSONResponse({}, 504), "failed with status 504", "ask again later, or for less"),
    ],
)
def test_every_warning_names_the_address(fronted, caplog, answer, warning, told):
    front = fronted(n=1, upstream=Counting(fault=lambda place: answer()))
    with pytest.raises(openai.APIStatusError, match=told) as raised:
        asked(front.client())
    assert "127.0.0.1" not in raised.value.response.text
    (said,) = warnings(caplog, warning)
    assert re.search(r"the upstream http://127\.0\.0\.1:\d+/v1 ", said)


def test_a_silent_upstream_is_named(fronted, caplog):
    front = fronted(n=1, upstream=Counting(seconds=20.0), connection={"read_timeout": 0.3})
    with pytest.raises(openai.InternalServerError, match="ask again later, or for less"):
        asked(front.client())
    assert re.search(r"http://127\S+/v1 did not answer", warnings(caplog, "in time")[0])


# --- calibration ---


def test_one_answer_is_compared_with_the_reference_that_was_drawn(fronted):
    front = fronted(n=4, calibrate=8)
    answer = asked(front.client(), extra_body={"infalign": {"n": 1}})
    told = answer.infalign
    assert told["candidates"] == 9
    assert told["reward"] == float(answer.choices[0].message.content.rsplit("=", 1)[1])
    assert told["quantile_among"] == "reference"
    assert 0 <= told["quantile"] <= 1
    assert told["reward_name"] == "worth"


def test_a_vote_is_compared_with_the_reference_that_was_drawn(fronted):
    front = fronted(procedure="majority_vote", n=3, calibrate=4)
    told = asked(front.client(), extra_body={"infalign": {"candidates": True}}).infalign
    assert told["rewards"][told["index"]] == told["reward"]
    assert told["quantile_among"] == "reference"


# --- a full queue ---


@pytest.mark.parametrize(
    ("concurrency", "queue", "said"),
    [(1, 1, "1 answer is being found and 1 request waits; "), (2, 0, "2 answers are .* and 0 req")],
)
def test_a_full_queue_is_told_in_grammar(concurrency, queue, said):
    async def fill():
        gate = Gate(concurrency, queue, Metrics())
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(concurrency):
                await stack.enter_async_context(gate.place())
            waiting = [asyncio.ensure_future(gate.place().__aenter__()) for _ in range(queue)]
            await asyncio.sleep(0)
            with pytest.raises(Refused, match=said):
                await stack.enter_async_context(gate.place())
            for one in waiting:
                one.cancel()

    asyncio.run(fill())
