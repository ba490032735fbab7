"""`infalign serve` as a process: it starts, answers, ends well and keeps secrets."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

from upstreams import KEY, Counting, asked, running  # noqa: E402

ENV = os.environ | {"OMP_NUM_THREADS": "1", "UPSTREAM_KEY": KEY, "FRONT_KEYS": "sk-client-secret"}
REWARD = """
def worth(prompts, responses):
    return [[float(text.rsplit("=", 1)[1]) for text in row] for row in responses]
"""


def command(*words):
    return [sys.executable, "-m", "infalign", "serve", *words]


@contextlib.contextmanager
def started(folder, *words):
    """The process and its address, once it listens."""
    (folder / "rewarding.py").write_text(REWARD)
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command("--port", "0", *words), cwd=folder, env=ENV, stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"running on (http://[\d.:]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process, found[1], log
    finally:
        process.kill()
        process.wait()


def test_it_serves_until_it_is_stopped(tmp_path):
    upstream = Counting(key=KEY)
    with running(upstream.app()) as url:
        words = ["--upstream", f"{url}/v1", "--reward", "rewarding:worth", "--procedure"]
        words += ["best_of_n", "--n", "8", "--max-n", "16", "--api-key-env", "FRONT_KEYS"]
        words += ["--upstream-key-env", "UPSTREAM_KEY"]
        with started(tmp_path, *words) as (process, address, log):
            base = f"{address}/v1"
            client = openai.OpenAI(base_url=base, api_key="sk-client-secret", max_retries=0)
            assert asked(client).infalign["procedure"] == "best-of-8"
            assert asked(client, n=3).infalign["candidates"] == 3
            text = "".join(p.choices[0].delta.content or "" for p in asked(client, stream=True))
            assert text.startswith("Why?=")
            with pytest.raises(openai.AuthenticationError):
                asked(openai.OpenAI(base_url=base, api_key="sk-wrong-secret", max_retries=0))
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            said = log.read_text()
    assert "best-of-8 in front of" in said
    assert said.count("POST /v1/chat/completions 200") == 3
    assert "POST /v1/chat/completions 401" in said
    assert "Traceback" not in said
    assert not [secret for secret in (KEY, "sk-client-secret", "sk-wrong") if secret in said]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_second_ctrl_c_ends_what_was_begun_with_an_error(tmp_path, is_stream):
    with running(Counting(seconds=60.0).app()) as url, ThreadPoolExecutor(1) as aside:
        words = ["--upstream", f"{url}/v1", "--reward", "rewarding:worth", "--n", "2"]
        with started(tmp_path, *words) as (process, address, log):
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
            if is_stream:
                pieces = asked(client, stream=True)  # comes when it has begun
                answer = aside.submit(list, pieces)
            else:
                answer = aside.submit(asked, client)
            time.sleep(1.0)
            process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + 60
            while "30 s to be finished" not in log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            with pytest.raises(openai.APIError, match="is being stopped") as raised:
                answer.result(60)
            assert process.wait(60) == 130
            said = log.read_text()
    assert raised.value.code == "stopping"
    assert "POST /v1/chat/completions 503" in said
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--upstream", "ftp://x/v1"], "begins with neither http"),
        (["--upstream", "http://user:pw@x/v1"], "holds a user, a password or a key"),
        (["--upstream", "http://x/v1", "--procedure", "best_of_m"], "Did you mean 'best_of_n'"),
        (["--upstream", "ftp://x/v1"], "--upstream has 'ftp://x/v1'"),
        (["--upstream", "http://x/v1"], "best-of-8 needs a reward"),
        (["--upstream", "http://x/v1", "--procedure", "majority_vote"], "give --n."),
        (
            ["--upstream", "http://x/v1", "--procedure", "soft_best_of_n", "--n", "4"],
            "needs temperature; write 'soft_best_of_4(0.1)'",
        ),
        (["--upstream", "http://x/v1", "--procedure", "best_of_8", "--n", "4"], "one of them"),
        (["--upstream", "http://x/v1", "--n", "0"], "--n is 0"),
        (["--upstream", "http://x/v1", "--calibrate", "1"], "--calibrate is 1"),
        (["--upstream", "http://x/v1", "--concurrency", "0"], "--concurrency is 0"),
        (
            ["--upstream", "http://x/v1", "--upstream-concurrency", "0"],
            "--upstream-concurrency is 0",
        ),
        (["--upstream", "http://x/v1", "--max-body", "0"], "--max-body is 0"),
        (
            ["--upstream", "http://x/v1", "--server-kind", "vlm"],
            "--server-kind is 'vlm'; it must be one of vllm, sglang",
        ),
        (["--upstream", "http://x/v1", "--server-kind", "vlm"], "Did you mean 'vllm'?"),
        (["--upstream", "http://x/v1", "--n", "200"], "--max-n"),
        (["--upstream", "http://x/v1", "--n", "4"], "needs a reward"),
        (
            ["--upstream", "http://x/v1", "--n", "4", "--reward", "no:thing"],
            "could not be imported",
        ),
        (["--upstream", "http://x/v1", "--n", "4", "--server-kind", "x"], "must be one of"),
        (["--upstream", "http://x/v1", "--n", "4", "--api-key-env", "NOT_SET"], "is not set"),
        (
            ["--upstream", "http://x/v1", "--n", "4", "--upstream-key-env", "NOT_SET"],
            "--upstream-key-env names NOT_SET",
        ),
        (["--upstream", "http://x/v1", "--n", "4", "--queue", "-1"], "--queue is -1"),
        (["--upstream", "http://x/v1", "--n", "4", "--timeout", "nan"], "--timeout is nan"),
    ],
)
def test_what_cannot_work_ends_in_a_message(capsys, words, message):
    from infalign.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert "Traceback" not in said
    assert "user:pw" not in said


def test_a_port_that_is_taken_is_told(capsys):
    from infalign.cli import main

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as ended:
            main(["serve", "--upstream", "http://x/v1", "--n", "1", "--port", port])
    assert ended.value.code == 2
    assert "cannot be listened on" in capsys.readouterr().err
