"""A server in front of an upstream, both real and on loopback."""

import contextlib
import functools

import pytest

pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("prometheus_client")

import openai

from infalign.policies.openai_server import Connection
from infalign.rewards import FunctionReward
from infalign.serving import Limits, Recipe, Serving, create_app
from upstreams import Counting, running, worth


class Front:
    """A running server, its upstream, and official clients of it."""

    def __init__(self, url, upstream, key):
        self.url, self.upstream, self.key = url, upstream, key

    def client(self, key=None, **options):
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=0, **options
        )

    def async_client(self, **options):
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=120, **options
        )


def started(
    stack,
    procedure="best_of_n",
    n=8,
    upstream=None,
    reward=worth,
    limits=None,
    connection=None,
    key="sk-client",
    at=(None,),
    **serving,
):
    """A server in front of an upstream, both closed with the stack.

    Args:
        at: addresses of the upstream; None stands for the one that is started here.
    """
    upstream = upstream or Counting()
    url = stack.enter_context(running(upstream.app())) + "/v1"
    settings = {"retries": 0, "read_timeout": 30.0, "concurrency": 64, **(connection or {})}
    if isinstance(procedure, str):
        procedure = Recipe(procedure, {} if n is None else {"n": n})
    built = Serving(
        Connection(tuple(one or url for one in at), **settings),
        procedure,
        limits=Limits(**{"candidates": 16, "seconds": 60.0, **(limits or {})}),
        **serving,
    )
    rewarding = None if reward is None else FunctionReward(reward, must_be_finite=False)
    return Front(stack.enter_context(running(create_app(built, rewarding))), upstream, key)


@pytest.fixture
def fronted():
    """Makes servers in front of an upstream."""
    with contextlib.ExitStack() as stack:
        yield functools.partial(started, stack)


@pytest.fixture(scope="module")
def front():
    """One server for all requests that are refused before anything is asked of the upstream."""
    with contextlib.ExitStack() as stack:
        yield started(stack, n=4, limits={"body_bytes": 10_000})
