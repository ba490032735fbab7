"""A server in front of an upstream, both real and on loopback."""

import contextlib

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


@pytest.fixture
def fronted():
    """Makes servers in front of an upstream."""
    with contextlib.ExitStack() as stack:

        def make(
            procedure="best_of_n",
            n=8,
            upstream=None,
            reward=worth,
            limits=None,
            connection=None,
            key="sk-client",
            **serving,
        ):
            upstream = upstream or Counting()
            url = stack.enter_context(running(upstream.app()))
            settings = {"retries": 0, "read_timeout": 30.0, "concurrency": 64, **(connection or {})}
            recipe = procedure
            if isinstance(procedure, str):
                recipe = Recipe(procedure, {} if n is None else {"n": n})
            built = Serving(
                Connection((f"{url}/v1",), **settings),
                recipe,
                limits=Limits(**{"candidates": 16, "seconds": 60.0, **(limits or {})}),
                **serving,
            )
            rewarding = None if reward is None else FunctionReward(reward, must_be_finite=False)
            return Front(stack.enter_context(running(create_app(built, rewarding))), upstream, key)

        yield make
