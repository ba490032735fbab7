"""Servers for the tests, on loopback: a real one, one that fails, one that speaks token ids."""

import contextlib
import dataclasses
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """`transformers serve` with one model, in a process that can be killed and started again."""

    def __init__(self, folder):
        self.folder, self.port, self.process = Path(folder), free_port(), None
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.model = str(self.folder)

    def start(self):
        caches = self.folder.parent / "caches"
        (caches / "hub").mkdir(parents=True, exist_ok=True)
        command = Path(sys.executable).parent / "transformers"
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32"]
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(caches), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(command), "serve", self.model, *options],
            env=os.environ | quiet,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder.parent / "serve.log").open("ab"),
        )

    def wait(self, seconds=120):
        for _ in range(int(seconds / 0.1)):
            with contextlib.suppress(OSError):
                return _DIRECT.open(f"http://127.0.0.1:{self.port}/health", timeout=5).read()
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        log = (self.folder.parent / "serve.log").read_text(errors="replace")
        raise RuntimeError(f"the server did not start:\n{log[-2000:]}")

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class _Local(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def read_body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "content-length" for name, _ in headers):
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def listening(handler):
    """A handler's server on a free port, in a thread: yields its base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


# --- a proxy that fails when told to ---


def busy(handler):
    handler.reply(429, {"error": "slow down"}, [("retry-after", "0.01")])


def broken(handler):
    handler.reply(500, {"error": "out of memory"})


def silent(handler):
    time.sleep(7.0)


def garbled(handler):
    handler.reply(200, b'{"choices": [{"index": 0, "te')


def truncated(handler):
    handler.reply(200, b'{"choices": [', [("content-length", "1000")])


def reset(handler):
    """Closed with bytes unread and no goodbye: the peer sees a reset connection."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def no_choices(handler):
    handler.reply(200, {"choices": []})


def no_text(handler):
    handler.reply(200, {"choices": [{"index": 0, "finish_reason": "stop"}]})


def aborted(handler):
    handler.reply(200, {"choices": [{"index": 0, "text": "ha", "finish_reason": "abort"}]})


def odd(*changes, **further):
    """A fault that answers with valid JSON whose choices are not what the protocol promises."""
    whole = {"index": 0, "text": "ha", "finish_reason": "stop"}
    data = {"choices": [whole | change for change in changes]} | further

    def fault(handler):
        handler.reply(200, data)

    return fault


FAULTS = {
    "busy": busy, "broken": broken, "silent": silent, "garbled": garbled, "truncated": truncated,
    "reset": reset, "no choices": no_choices, "no text": no_text, "aborted": aborted,
    "index null": odd({"index": None}), "reason listed": odd({"finish_reason": ["stop"]}),
    "a token": odd({"token_ids": 5}), "half a character": odd({"text": "\ud800"}),
    "token true": odd({"token_ids": [True]}),
    "log p above 0": odd({"logprobs": {"token_logprobs": [3.0]}}),
    "log p huge": odd({"logprobs": {"token_logprobs": [-(10**400)]}},
                      usage={"completion_tokens": 1}),
    "too deep": lambda handler: handler.reply(200, b"[" * 100_000),
}  # fmt: skip


class Proxy:
    """Forwards requests to a server, but answers some of them with a fault."""

    def __init__(self, target, fault, failing):
        self.target, self.fault, self.failing = target.removesuffix("/v1"), fault, failing
        self.seen, self.lock = 0, threading.Lock()

    def running(self):
        proxy = self

        class Handler(_Local):
            def do_GET(self):
                self.forward(None)

            def do_POST(self):
                body = self.read_body()
                with proxy.lock:
                    place, proxy.seen = proxy.seen, proxy.seen + 1
                if proxy.failing(place):
                    proxy.fault(self)
                    self.close_connection = True
                else:
                    self.forward(body)

            def forward(self, body):
                headers = {"content-type": "application/json"}
                request = urllib.request.Request(proxy.target + self.path, body, headers)
                try:
                    with _DIRECT.open(request, timeout=60) as answer:
                        self.reply(answer.status, answer.read())
                except urllib.error.HTTPError as error:
                    self.reply(error.code, error.read())

        return listening(Handler)


# --- a server that takes and gives token ids, over a policy of ours ---


@contextlib.contextmanager
def token_server(policy, change=None, report=None):
    """What vLLM and SGLang do with token ids, log-probabilities before temperature included.

    Args:
        policy: a CausalLM with the sampling law that will be asked for.
        change: called with the answer's choices before they are sent.
        report: whose log-probabilities are told; the policy's by default, at temperature 1.
    """
    report = report or policy.with_sampling(dataclasses.replace(policy.sampling, temperature=1.0))
    lock, bodies = threading.Lock(), []

    class Handler(_Local):
        def do_GET(self):
            self.reply(200, {"data": [{"id": "tiny", "max_model_len": 64}]})

        def do_POST(self):
            body = json.loads(self.read_body())
            bodies.append(body | {"path": self.path, "key": self.headers.get("authorization")})
            if body["model"] != "tiny":
                return self.reply(404, {"error": f"no model {body['model']}"})
            with lock:
                choices = self.drawn(body)
            for choice in choices:
                if change is not None:
                    change(choice)
            usage = {"prompt_tokens": len(body["prompt"])}
            return self.reply(200, {"choices": choices, "usage": usage})

        def drawn(self, body):
            read, n = tuple(body["prompt"]), body.get("n", 1)
            law = dataclasses.replace(policy.sampling, temperature=body["temperature"])
            numbers = np.random.default_rng(body["seed"]).random((1, n, law.max_new_tokens))
            sampler, cap = policy.with_sampling(law), body["max_tokens"]
            (drawn,) = sampler._write([read], numbers[:, :, :cap].copy(), [cap])
            row = [policy.codec.response(*answer) for answer in drawn]
            totals = [_log_prob(report, read, response.token_ids) for response in row]
            return [
                {
                    "index": i,
                    "text": response.text,
                    "token_ids": list(response.token_ids),
                    # The sum on the first token and zeros after: only the sum is read.
                    "logprobs": {"token_logprobs": [total] + [0.0] * (len(response.token_ids) - 1)},
                    "finish_reason": response.finish_reason,
                }
                for i, (response, total) in enumerate(zip(row, totals, strict=True))
            ]

    with listening(Handler) as url:
        yield url, bodies


def _log_prob(policy, read, tokens):
    """Teacher forcing."""
    import torch

    with torch.no_grad():
        logits = policy.module(input_ids=torch.tensor([[*read, *tokens]])).logits[
            0, len(read) - 1 :
        ]
    law = torch.log_softmax(logits.double() / policy.sampling.temperature, -1)
    return sum(law[place, token].item() for place, token in enumerate(tokens))
