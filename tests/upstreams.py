"""An upstream for the tests of serving: computes an answer from the prompt and the seed, and fails
when it is told to. Everything runs on loopback by uvicorn, in threads."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import threading
import time
import urllib.error
import urllib.request

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MODEL = "counting"
KEY = "sk-upstream-secret"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def asked(client, text="Why?", **further):
    """A chat completion of one user's message."""
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=MODEL, messages=messages, **further)


def got(url):
    """Status and text."""
    with _DIRECT.open(url, timeout=30) as answer:
        return answer.status, answer.read().decode()


def posted(front, path, body, key=None, headers=None, method="POST"):
    """Status, headers, JSON of a request that no official client would send."""
    data = json.dumps(body).encode() if isinstance(body, dict | list) else body
    given = {"content-type": "application/json", "authorization": f"Bearer {key or front.key}"}
    url = front.url + path
    request = urllib.request.Request(url, data, given | (headers or {}), method=method)
    try:
        with _DIRECT.open(request, timeout=30) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())


@contextlib.contextmanager
def running(app):
    """The application on a free port, in a thread: yields its address, without /v1."""
    config = uvicorn.Config(
        app, port=0, access_log=False, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def value_of(prompt, seed, place):
    """What candidate `place` to a prompt is worth: 0 … 9999."""
    digest = hashlib.sha256(f"{prompt}|{seed}|{place}".encode()).hexdigest()
    return int(digest, 16) % 10_000


def worth(prompts, responses):
    """The reward: the number at the end. A response to another prompt is worth a failure."""
    return [[float(text.rsplit("=", 1)[1]) for text in row] for row in responses]


class Counting:
    """Answers "prompt=number"; what it is asked and what becomes of it is kept.

    Args:
        several: whether `n` is honoured; False: one choice comes; None: it is refused with 400.
        fault: called with the request's place; returns a Response, or None to answer.
    """

    def __init__(self, several=True, fault=None, seconds=0.0, key=None):
        self.several, self.fault, self.seconds, self.key = several, fault, seconds, key
        self.bodies, self.cancelled, self.finished = [], 0, 0
        self.now = self.most = 0
        self.count = itertools.count()

    def app(self):
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.completions, methods=["POST"]),
                Route("/v1/models", self.models),
            ]
        )

    async def models(self, request):
        if not self.knows(request):
            return wrong_key(request)
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def knows(self, request):
        return self.key is None or request.headers.get("authorization") == f"Bearer {self.key}"

    async def chat(self, request):
        return await self.answered(request, "chat.completion")

    async def completions(self, request):
        return await self.answered(request, "text_completion")

    async def answered(self, request, kind):
        body = json.loads(await request.body())
        place = next(self.count)
        self.bodies.append(body)
        self.now += 1
        self.most = max(self.most, self.now)
        left = asyncio.create_task(self.left(request))
        try:
            if not self.knows(request):
                return wrong_key(request)
            fault = self.fault(place) if self.fault is not None else None
            if asyncio.iscoroutine(fault):
                fault = await fault
            if fault is not None:
                return fault
            done, _ = await asyncio.wait({left}, timeout=self.seconds)
            if done:
                self.cancelled += 1
                return Response()
            self.finished += 1
            return self.answer(body, kind, place)
        finally:
            self.now -= 1
            left.cancel()

    async def left(self, request):
        while (await request.receive())["type"] != "http.disconnect":
            pass

    def answer(self, body, kind, place):
        if body["model"] != MODEL:
            return JSONResponse({"error": {"message": f"no model {body['model']}"}}, 404)
        n = body.get("n", 1)
        if n > 1 and self.several is None:
            return JSONResponse({"error": {"message": "only one completion"}}, 400)
        is_chat = kind == "chat.completion"
        prompt = body["messages"][-1]["content"] if is_chat else body["prompt"]
        seed = body.get("seed", f"own {place}")
        choices = []
        for i in range(n if self.several else 1):
            text = f"{prompt}={value_of(prompt, seed, i)}"
            said = (
                {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
            )
            choices.append({"index": i, "finish_reason": "stop", "logprobs": None, **said})
        usage = {"prompt_tokens": 5, "completion_tokens": 3 * len(choices)}
        usage["total_tokens"] = sum(usage.values())
        return JSONResponse(
            {
                "id": f"cmpl-{place}",
                "object": kind,
                "created": 1,
                "model": MODEL,
                "choices": choices[::-1],  # in no particular order
                "usage": usage,
            }
        )


def wrong_key(request):
    """As OpenAI does, the key that came is repeated."""
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return JSONResponse({"error": {"message": f"Incorrect API key provided: {given}"}}, 401)
