"""`serve`: a procedure in front of an OpenAI-compatible model, as an OpenAI-compatible server."""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from infalign.cli.answer import options
from infalign.cli.answer.members import reward_of
from infalign.cli.failing import explained

__all__ = ["serve"]

_CANDIDATES = 8
"""Of best-of-N, where nothing says how many."""
_OPTIONS = {
    "n": "--n",
    "beta": "--beta",
    "steps": "--steps",
    "block": "--block",
    "calibrate": "--calibrate",
    "server": "--server-kind",
    "n_per_request": "--n-per-request",
    "candidates": "--max-n",
    "concurrency": "--concurrency",
    "queue": "--queue",
    "seconds": "--timeout",
    "body_bytes": "--max-body",
    "base_urls": "--upstream",
    "api_key_env": "--upstream-key-env",
}
"""What the library calls its settings → what was typed."""
_EXAMPLES = {
    "temperature": "0.1",
    "threshold": "0.9",
    "at_most": "8",
    "mean": "4",
    "probabilities": "0, 1",
}
_NEEDS = re.compile(r"The procedure '(\w+)' needs ([\w ]+); give a value\.")

_UPSTREAM, _HERE, _LIMITS = "The model behind it", "Where it listens, and who may ask", "Limits"


def _option(*names: str, metavar: str, about: str, panel: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=about, rich_help_panel=panel)


@explained
def serve(
    upstream: Annotated[
        list[str],
        _option(
            "--upstream",
            "-u",
            metavar="URL",
            about="Where the model is served, such as http://127.0.0.1:8000/v1; may be repeated "
            "for several servers of one model.",
            panel=_UPSTREAM,
        ),
    ],
    procedure: options.ProcedureName = "best_of_n",
    n: options.Number = None,
    beta: options.Beta = None,
    steps: options.StepCount = None,
    block: options.Block = None,
    calibrate: Annotated[
        int,
        _option(
            "--calibrate",
            metavar="K",
            about="Reference draws for each request: quantiles in the answers, and procedures "
            "that need them.",
            panel=options.HOW,
        ),
    ] = 0,
    reward: options.RewardName = None,
    label: options.Label = None,
    model: Annotated[
        str | None,
        _option(
            "--model",
            "-m",
            metavar="NAME",
            about="Ask for this one, whatever a request names.",
            panel=_UPSTREAM,
        ),
    ] = None,
    kind: Annotated[
        str,
        _option(
            "--server-kind",
            metavar="NAME",
            about="vllm, sglang, llama_cpp, transformers or openai: how it is told to sample from "
            "the whole vocabulary; openai is told nothing.",
            panel=_UPSTREAM,
        ),
    ] = "openai",
    upstream_key_env: Annotated[
        str | None,
        _option(
            "--upstream-key-env",
            metavar="VARIABLE",
            about="Environment variable with its key.",
            panel=_UPSTREAM,
        ),
    ] = None,
    n_per_request: Annotated[
        int,
        _option(
            "--n-per-request",
            metavar="N",
            about="Candidates asked of it in one request.",
            panel=_UPSTREAM,
        ),
    ] = 8,
    upstream_timeout: Annotated[
        float,
        _option(
            "--upstream-timeout",
            metavar="SECONDS",
            about="It may be silent for so long.",
            panel=_UPSTREAM,
        ),
    ] = 300.0,
    upstream_concurrency: Annotated[
        int,
        _option(
            "--upstream-concurrency",
            metavar="N",
            about="Requests to it at once.",
            panel=_UPSTREAM,
        ),
    ] = 256,
    host: Annotated[
        str, _option("--host", metavar="ADDRESS", about="Listened on.", panel=_HERE)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0: any.", rich_help_panel=_HERE)
    ] = 8001,
    api_key_env: Annotated[
        str | None,
        _option(
            "--api-key-env",
            metavar="VARIABLE",
            about="Environment variable with the keys of clients, commas between; without it "
            "everybody may ask.",
            panel=_HERE,
        ),
    ] = None,
    max_n: Annotated[
        int,
        _option("--max-n", metavar="N", about="Candidates of one answer.", panel=_LIMITS),
    ] = 128,
    concurrency: Annotated[
        int, _option("--concurrency", metavar="N", about="Answers at once.", panel=_LIMITS)
    ] = 64,
    queue: Annotated[
        int,
        _option("--queue", metavar="N", about="Requests waiting; then 429.", panel=_LIMITS),
    ] = 256,
    timeout: Annotated[
        float,
        _option("--timeout", metavar="SECONDS", about="Of one answer; then 504.", panel=_LIMITS),
    ] = 600.0,
    max_body: Annotated[
        int,
        _option("--max-body", metavar="BYTES", about="Of one request; then 413.", panel=_LIMITS),
    ] = 4 * 2**20,
) -> None:
    """Serve a model behind a procedure, to clients that speak OpenAI's protocol.

    Each answer is what the procedure chooses among candidates that the upstream model draws, by a \
reward that runs here. The page docs/serving.md says what clients may ask for.

    Examples:
      [cyan]infalign serve --upstream http://127.0.0.1:8000/v1 --reward embedded --procedure \
best_of_n --n 8[/]
      [cyan]infalign serve -u http://127.0.0.1:8000/v1 --reward embedded[/]   (best of 8)
      [cyan]infalign serve -u http://127.0.0.1:8000/v1 --procedure majority_vote --n 16[/]
    """
    from infalign.policies.openai_server import Connection
    from infalign.serving import Limits, Recipe, Serving
    from infalign.serving import serve as served

    name = procedure or "best_of_n"
    if n is None and name.replace("-", "_") == "best_of_n":
        n = _CANDIDATES
    given = {"n": n, "beta": beta, "steps": steps, "block": block}
    settings = {name: value for name, value in given.items() if value is not None}
    known: Any = kind
    with _options_named(
        {
            "concurrency": "--upstream-concurrency",
            "read_timeout": "--upstream-timeout",
            "api_key_env": "--upstream-key-env",
        },
        n,
    ):
        connection = Connection(
            tuple(upstream),
            api_key_env=upstream_key_env,
            concurrency=upstream_concurrency,
            read_timeout=upstream_timeout,
        )
    with _options_named({}, n):
        serving = Serving(
            connection,
            Recipe(name, settings),
            server=known,
            model=model,
            n_per_request=n_per_request,
            calibrate=calibrate,
            key_env=api_key_env,
            limits=Limits(
                candidates=max_n,
                concurrency=concurrency,
                queue=queue,
                seconds=timeout,
                body_bytes=max_body,
            ),
        )
    _require_free(host, port)
    served(
        serving,
        None if reward is None else reward_of(reward, label),
        host=host,
        port=port,
    )


@contextlib.contextmanager
def _options_named(own: Mapping[str, str], n: int | None) -> Iterator[None]:
    """Refusals of settings name the options that were typed.

    Args:
        own: names that mean something else than usual within the block.
        n: as it was typed, for the example of a name with settings.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(_in_options(str(error), {**_OPTIONS, **own}, n)) from None


def _in_options(message: str, options: Mapping[str, str], n: int | None) -> str:
    needs = _NEEDS.fullmatch(message)
    if needs is None:
        word = re.match(r"\w+", message)
        option = None if word is None else options.get(word[0])
        return message if word is None or option is None else option + message[word.end() :]
    name, missing = needs[1], needs[2].split(" and ")
    if all(setting in options for setting in missing):
        return (
            f"{name} needs {' and '.join(missing)}; give "
            + " and ".join(options[setting] for setting in missing)
            + "."
        )
    stem = f"{name[:-1]}{n or 4}" if name.endswith("_of_n") else name
    values = [_EXAMPLES[one] for one in missing if one in _EXAMPLES]
    return f"{name} needs {' and '.join(missing)}; write '{stem}({', '.join(values)})', say."


def _require_free(host: str, port: int) -> None:
    """Before a reward is loaded, not after.

    Raises:
        OSError: the port is taken, or the address is none of this machine.
    """
    is_six = ":" in host and ipaddress.ip_address(host).version == 6
    family = socket.AF_INET6 if is_six else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OSError(
                f"{host}:{port} cannot be listened on ({error.strerror or error}); give another "
                "--port or --host, or end what listens there."
            ) from None
