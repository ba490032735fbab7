"""Many clients at once: none is lost, none gets another's answer, none waits without end."""

import asyncio

import openai
import pytest

from upstreams import MODEL, Counting, value_of

CLIENTS = 200


async def answer_to(client, text, **further):
    messages = [{"role": "user", "content": text}]
    return await client.chat.completions.create(model=MODEL, messages=messages, **further)


async def streamed(client, text, **further):
    parts = [
        piece.choices[0].delta.content or ""
        async for piece in await answer_to(client, text, stream=True, **further)
    ]
    return "".join(parts)


def test_two_hundred_clients_none_lost_none_crossed(fronted):
    """Half of them by streams; each with its own n and seed, so each answer can be told."""
    upstream = Counting(seconds=0.02)
    front = fronted(n=8, upstream=upstream, n_per_request=3, connection={"concurrency": 48})

    async def everybody():
        async with front.async_client() as client:
            return await asyncio.gather(
                *(
                    streamed(client, f"question {i}", seed=i, n=2 + i % 9)
                    if i % 2
                    else answer_to(client, f"question {i}", seed=i, n=2 + i % 9)
                    for i in range(CLIENTS)
                )
            )

    answers = asyncio.run(everybody())
    assert len(answers) == CLIENTS
    drawn = {}
    for body in upstream.bodies:
        prompt = body["messages"][-1]["content"]
        for i in range(body.get("n", 1)):
            drawn.setdefault(prompt, []).append(value_of(prompt, body["seed"], i))
    for i, answer in enumerate(answers):
        prompt = f"question {i}"
        assert len(drawn[prompt]) == 2 + i % 9
        text = answer if i % 2 else answer.choices[0].message.content
        assert text == f"{prompt}={max(drawn[prompt])}"
        assert i % 2 or answer.usage.completion_tokens == 3 * (2 + i % 9)
    assert upstream.most <= 48  # requests in flight upstream stay bounded
    assert upstream.most > 8  # and they do overlap


def test_beyond_the_queue_clients_are_told_to_come_back(fronted):
    upstream = Counting(seconds=0.5)
    front = fronted(n=1, upstream=upstream, limits={"concurrency": 2, "queue": 3})

    async def everybody():
        async with front.async_client() as client:
            tasks = [answer_to(client, f"question {i}") for i in range(12)]
            return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(everybody())
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    given = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(given) + len(refused) == 12
    assert len(given) >= 5
    assert len(refused) >= 1
    assert upstream.most <= 2
    for refusal in refused:
        assert int(refusal.response.headers["retry-after"]) >= 1
        assert refusal.code == "queue_full"


def test_a_client_that_comes_back_is_answered(fronted):
    """The official client does so by itself, after the time it was told."""
    front = fronted(n=1, upstream=Counting(seconds=0.2), limits={"concurrency": 1, "queue": 1})

    async def everybody():
        async with front.async_client() as client:
            patient = client.with_options(max_retries=8)
            return await asyncio.gather(*(answer_to(patient, f"q{i}") for i in range(5)))

    answers = asyncio.run(everybody())
    assert [a.choices[0].message.content.split("=")[0] for a in answers] == [
        f"q{i}" for i in range(5)
    ]


def test_rewards_of_many_requests_are_scored_together(fronted):
    """What gathers while the reward is busy is one call of it."""
    import time

    calls = []

    def slow(prompts, responses):
        calls.append(len(prompts))
        time.sleep(0.05)
        return [[float(text.rsplit("=", 1)[1]) for text in row] for row in responses]

    front = fronted(n=2, reward=slow)

    async def everybody():
        async with front.async_client() as client:
            return await asyncio.gather(*(answer_to(client, f"q{i}", seed=i) for i in range(40)))

    answers = asyncio.run(everybody())
    assert sum(calls) == 40
    assert len(calls) < 20
    bodies = {body["messages"][-1]["content"]: body["seed"] for body in front.upstream.bodies}
    for i, answer in enumerate(answers):
        best = max(value_of(f"q{i}", bodies[f"q{i}"], place) for place in range(2))
        assert answer.choices[0].message.content == f"q{i}={best}"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_ends_the_work_upstream(fronted, is_stream):
    upstream = Counting(seconds=20.0)
    limits = {"keep_alive": 0.1, "concurrency": 1}
    front = fronted(n=4, n_per_request=1, upstream=upstream, limits=limits)

    async def leave():
        async with front.async_client() as client:
            work = streamed if is_stream else answer_to
            task = asyncio.create_task(work(client, "Why?"))
            while len(upstream.bodies) < 4:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while upstream.cancelled < 4:  # all four are told, long before they would end
                await asyncio.sleep(0.01)
            upstream.seconds = 0.0
            return await answer_to(client, "And now?")  # the place is free again

    answer = asyncio.run(asyncio.wait_for(leave(), 15))
    assert answer.choices[0].message.content.startswith("And now?=")
    assert upstream.now == 0


def test_a_client_that_leaves_the_queue_makes_room(fronted):
    upstream = Counting(seconds=20.0)
    front = fronted(n=1, upstream=upstream, limits={"concurrency": 1, "queue": 1})

    async def leave():
        async with front.async_client() as client:
            first = asyncio.create_task(answer_to(client, "first"))
            while not upstream.bodies:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(answer_to(client, "second"))
            await asyncio.sleep(0.3)
            with pytest.raises(openai.RateLimitError):
                await answer_to(client, "third")
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await asyncio.sleep(0.3)
            fourth = asyncio.create_task(answer_to(client, "fourth"))
            await asyncio.sleep(0.3)
            upstream.seconds = 0.0
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            return await fourth

    answer = asyncio.run(asyncio.wait_for(leave(), 15))
    assert answer.choices[0].message.content.startswith("fourth=")
    asked = [body["messages"][-1]["content"] for body in upstream.bodies]
    assert asked == ["first", "fourth"]  # nothing was drawn for who had left
