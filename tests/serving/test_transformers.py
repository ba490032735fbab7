"""Before a real server of a real (if tiny and random) language model: `transformers serve`."""

import asyncio

import openai
import pytest

pytest.importorskip("torch")

from infalign.rewards import FunctionReward
from infalign.serving import Recipe, Serving, create_app
from upstreams import running


def vowels(prompts, responses):
    """Something that differs from answer to answer."""
    return [
        [sum(c in "aeiou" for c in text) / (1 + len(text)) for text in row] for row in responses
    ]


@pytest.fixture(scope="module")
def front(served):
    from infalign.policies.openai_server import Connection

    connection = Connection((served.url,), read_timeout=60, retries=1, concurrency=4)
    serving = Serving(connection, Recipe("best_of_n", {"n": 4}), server="transformers")
    with running(create_app(serving, FunctionReward(vowels, "vowels"))) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


def test_the_best_of_four_samples_of_a_language_model(front, served):
    answer = front.completions.create(
        model=served.model,
        prompt="the film is",
        max_tokens=12,
        temperature=0.9,
        extra_body={"infalign": {"candidates": True}},
    )
    facts = answer.infalign
    assert len(facts["texts"]) == 4
    assert facts["distinct"] > 1  # it was told to sample
    assert answer.choices[0].text == facts["texts"][facts["index"]]
    assert (
        facts["reward"]
        == max(facts["rewards"])
        == vowels([""], [facts["texts"]])[0][facts["index"]]
    )
    assert answer.usage.completion_tokens <= 4 * 12
    assert answer.usage.completion_tokens > 12  # more than one candidate's


def test_a_chat_is_streamed(front, served):
    messages = [{"role": "user", "content": "How is the film?"}]
    pieces = list(
        front.chat.completions.create(
            model=served.model, messages=messages, max_tokens=12, stream=True
        )
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    last = pieces[-1]
    assert last.infalign["reward"] == pytest.approx(vowels([""], [[text]])[0][0])
    assert last.infalign["candidates"] == 4


def test_a_dozen_clients_at_once(front, served):
    client = openai.AsyncOpenAI(base_url=front.base_url, api_key="none", timeout=120)

    async def everybody():
        async with client:
            return await asyncio.gather(
                *(
                    client.completions.create(
                        model=served.model, prompt="a lazy film", max_tokens=6, n=2
                    )
                    for _ in range(12)
                )
            )

    answers = asyncio.run(everybody())
    assert [answer.infalign["candidates"] for answer in answers] == [2] * 12


def test_what_it_refuses_reaches_the_client(front, served):
    with pytest.raises(openai.APIStatusError) as raised:
        front.completions.create(
            model=served.model, prompt="a", max_tokens=4, extra_body={"no_such_field": 1}
        )
    assert raised.value.status_code in (400, 422)
