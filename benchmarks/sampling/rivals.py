"""What the library is measured against: generate, continuous batching, transformers serve."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

Tokens = list[tuple[int, ...]]
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@torch.no_grad()
def generate(
    model: Any,
    contexts: Sequence[Sequence[int]],
    k: int,
    tokens: int,
    stops: Sequence[int],
    rows: int,
    seed: int,
) -> Tokens:
    """`model.generate(num_return_sequences=K)` from the whole vocabulary: P·K responses.

    Prompts of like length go together; `rows` sequences at most, or one prompt's. Tokens that end a
    response are given as ends of sequence: `stop_strings` would be slower.
    """
    found: list[Tokens] = [[] for _ in contexts]
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    torch.manual_seed(seed)
    for start in range(0, len(order), max(1, rows // k)):
        chunk = order[start : start + max(1, rows // k)]
        width = max(len(contexts[i]) for i in chunk)
        padding = [width - len(contexts[i]) for i in chunk]
        filled = [[stops[0]] * n + list(contexts[i]) for i, n in zip(chunk, padding, strict=True)]
        mask = [[0] * n + [1] * (width - n) for n in padding]
        out = model.generate(
            input_ids=torch.tensor(filled), attention_mask=torch.tensor(mask),
            do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=tokens,
            num_return_sequences=k, eos_token_id=list(stops), pad_token_id=stops[0],
        )  # fmt: skip
        for row, ids in enumerate(out[:, width:].tolist()):
            found[chunk[row // k]].append(cut(ids, set(stops)))
    return [ids for row in found for ids in row]


def cut(ids: Sequence[int], stops: set[int]) -> tuple[int, ...]:
    """A response up to the token that ends it; the rest is padding."""
    for place, token in enumerate(ids):
        if token in stops:
            return tuple(ids[: place + 1])
    return tuple(ids)


def generate_continuously(
    model: Any, contexts: Sequence[Sequence[int]], k: int, tokens: int, stops: Sequence[int],
    seed: int,
) -> Tokens:  # fmt: skip
    """`model.generate_batch`: P·K responses by transformers' continuous batching."""
    from transformers import GenerationConfig

    torch.manual_seed(seed)
    config = GenerationConfig(
        do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=tokens,
        eos_token_id=list(stops), pad_token_id=stops[0],
    )  # fmt: skip
    inputs = [list(context) for context in contexts for _ in range(k)]
    out = model.generate_batch(inputs=inputs, generation_config=config)
    return [cut(answer.generated_tokens, set(stops)) for answer in out.values()]


@dataclasses.dataclass(frozen=True)
class Server:
    """A running `transformers serve`."""

    url: str
    model: str
    process: psutil.Process


@contextlib.contextmanager
def serving(folder: Path, dtype: str) -> Iterator[Server]:
    """`transformers serve` on loopback, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(Path(sys.executable).parent / "transformers"), "serve"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", dtype]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, str(folder), *options], env=dict(os.environ), **quiet)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process)
        yield Server(f"http://127.0.0.1:{port}/v1", str(folder), psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


def _wait(address: str, process: subprocess.Popen, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            _DIRECT.open(address, timeout=5).read()
            return
        time.sleep(0.2)
    raise OSError("transformers serve did not start: pip install 'transformers[serving]'.")


def answers_of_server(
    server: Server, prompts: Sequence[str], k: int, tokens: int, stop: tuple[str, ...]
) -> tuple[list[list[str]], float, float]:
    """K texts of each prompt, and the wall seconds and the server's processor seconds it took."""
    from infalign.policies.openai_server import Connection, OpenAIServer
    from infalign.protocols import Sampling

    sampling = Sampling(temperature=1.0, max_new_tokens=tokens, stop=stop)
    connection = Connection(base_urls=(server.url,))
    client = OpenAIServer(server.model, sampling, connection, server="transformers")
    client.sample(prompts[:1], 1, np.random.default_rng(1))
    before, start = _seconds(server.process), time.perf_counter()
    rows = client.sample(prompts, k, np.random.default_rng(0))
    wall = time.perf_counter() - start
    texts = [[response.text for response in row] for row in rows]
    return texts, wall, _seconds(server.process) - before


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
