"""Procedures that go on from beginnings, before an upstream that speaks token ids as vLLM does."""

import asyncio
import json
import math

import numpy as np
import openai
import pytest
from scipy import stats
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from infalign.decoding import BlockwiseBestOfN, decode
from infalign.decoding.mcmc import mcmc
from infalign.policies import TabularLM
from infalign.policies.openai_server import Connection
from infalign.policies.openai_server.answers import Choice
from infalign.prompts import Prompt
from infalign.rewards import FunctionReward
from infalign.serving import Serving
from infalign.serving.continuing import whole_text
from infalign.serving.drawing import Drawing
from infalign.serving.driving import decoded
from infalign.serving.metrics import Metrics
from infalign.serving.requests import asked_of
from upstreams import MODEL, Counting, asked

TEXT = "Why?"
CHAINS = 1500
"""Answers in each sample of a law."""


def letters(prompts, responses):
    """A reward that looks into the text."""
    return [[text.count("b") + 2.0 * text.startswith("ab") for text in row] for row in responses]


REWARD = FunctionReward(letters, "letters")
LM = TabularLM.random((TEXT,), ("a", "b"), 3, np.random.default_rng(5))


class Table(Counting):
    """A table of tokens that speaks as vLLM does: prompts and answers as token ids, detokenize."""

    PROMPT = 1000

    def __init__(self, lm=LM, forget=False):
        super().__init__()
        self.lm, self.forget, self.rng = lm, forget, np.random.default_rng(0)

    def app(self):
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]
        return Starlette(routes=routes)

    async def detokenize(self, request):
        body = json.loads(await request.body())
        return JSONResponse({"prompt": self.lm.text(body["tokens"])})

    def answer(self, body, kind, place):
        return JSONResponse(self.completion(body, kind))

    def completion(self, body, kind):
        given = body.get("prompt")
        beginning = tuple(given[1:]) if isinstance(given, list) else ()
        begun = () if self.forget else beginning
        rng = np.random.default_rng(body["seed"]) if "seed" in body else self.rng
        (row,) = self.lm.continue_from(
            [TEXT], [begun], body.get("n", 1), rng, limit=body["max_tokens"]
        )
        choices = [self.choice(i, r, len(begun), kind) for i, r in enumerate(row)]
        return {"object": kind, "model": MODEL, "choices": choices}

    def choice(self, i, response, start, kind):
        new = response.token_ids[start:]
        reason = "stop" if response.finish_reason == "stop" else "length"
        choice = {"index": i, "finish_reason": reason, "token_ids": new, "stop_reason": None}
        choice["prompt_token_ids"] = [self.PROMPT]
        if kind == "chat.completion":
            return {**choice, "message": {"role": "assistant", "content": self.lm.text(new)}}
        return {**choice, "text": self.lm.text(new)}


class Nearby:
    """The upstream without the network between."""

    gives_several = True

    def __init__(self, table):
        self.table = table

    async def ask(self, api, body):
        kind = "chat.completion" if api == "chat" else "text_completion"
        return json.dumps(self.table.completion(body, kind)), "nearby"

    async def detokenized(self, model, tokens):
        return self.table.lm.text(tokens)


def served(procedure, table, count, api):
    """Answers to so many requests, as counts of texts."""
    serving = Serving(Connection(), procedure, server="vllm")
    what = {"messages": [{"role": "user", "content": TEXT}]} if api == "chat" else {"prompt": TEXT}
    raw = json.dumps({"model": MODEL, "max_tokens": 3, **what}).encode()
    wanted, metrics = asked_of(raw, api, None, 64), Metrics()

    async def score(prompt, texts):
        return np.array(letters([prompt], [texts])[0])

    async def all_of_them():
        answers = []
        for rng in np.random.default_rng(1).spawn(count):
            drawing = Drawing(Nearby(table), serving, wanted, True, rng, metrics)
            prompt = wanted.prompt
            answers.append(await decoded(procedure, prompt, drawing, score, None, rng))
        return [answer.text for answer in answers]

    return asyncio.run(all_of_them())


def local(procedure, count):
    """Answers of the library itself, with the table in this process."""
    prompts = [Prompt.from_text(TEXT)] * count
    answers = decode(LM, prompts, REWARD, procedure, rng=np.random.default_rng(2))
    return [answer.text for answer in answers]


def p_value(first, second):
    """Of both samples having one law: χ² of their counts, rare texts together."""
    texts = LM.texts()
    counts = np.array([[sample.count(text) for text in texts] for sample in (first, second)])
    is_rare = counts.sum(0) < 20
    table = np.column_stack([counts[:, ~is_rare], counts[:, is_rare].sum(1)])
    return stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue


PROCEDURES = {"blockwise": BlockwiseBestOfN(3, block=1), "chain": mcmc(beta=0.7, steps=4)}


@pytest.mark.parametrize(("name", "api"), [("blockwise", "chat"), ("chain", "completions")])
def test_the_law_is_that_of_the_library(name, api):
    """χ² of two samples of 1,500 answers; fixed seeds, false alarm 1e-3. p here: 0.52, 0.31."""
    procedure = PROCEDURES[name]
    assert p_value(served(procedure, Table(), CHAINS, api), local(procedure, CHAINS)) > 1e-3


@pytest.mark.parametrize("procedure", PROCEDURES.values(), ids=PROCEDURES)
def test_an_upstream_that_forgets_the_beginning_has_another_law(procedure):
    """Negative control: the test above sees it."""
    wrong = served(procedure, Table(forget=True), CHAINS, "chat")
    assert p_value(wrong, local(procedure, CHAINS)) < 1e-6


@pytest.mark.parametrize(
    ("reason", "stop_reason", "text"),
    [
        ("stop", None, "abab"),  # the last token ended it
        ("stop", 7, "abab"),
        ("length", None, "ababa"),
        ("stop", "ba", "a"),  # a stop string lies within the text; the first one counts
    ],
)
def test_the_text_of_a_whole_is_that_of_its_tokens_up_to_its_end(reason, stop_reason, text):
    choice = Choice("ba", (0, 1, 0), math.nan, reason)
    wanted = asked_of(b'{"model": "m", "prompt": "x"}', "completions", None, 8)
    raw = {"stop_reason": stop_reason}
    found = whole_text(Nearby(Table()), wanted, (0, 1, 0, 1, 0), choice, raw)
    assert asyncio.run(found) == text


def test_blocks_as_long_as_the_response_are_best_of_n(fronted):
    front = fronted(BlockwiseBestOfN(4, block=3), upstream=Table(), reward=letters, server="vllm")
    answer = asked(front.client(), max_tokens=3, extra_body={"infalign": {"candidates": True}})
    assert answer.infalign["reward"] == max(answer.infalign["rewards"])
    assert answer.infalign["candidates"] == 4
    assert all("return_token_ids" in body for body in front.upstream.bodies)


def test_a_chain_is_served(fronted):
    front = fronted(mcmc(beta=0.5, steps=6), upstream=Table(), reward=letters, server="vllm")
    answer = asked(
        front.client(), max_tokens=3, seed=4, extra_body={"infalign": {"candidates": True}}
    )
    text = answer.choices[0].message.content
    assert text in LM.texts()
    assert text == answer.infalign["texts"][answer.infalign["index"]]
    assert len(answer.infalign["texts"]) == 7
    assert answer.infalign["reward"] == letters([""], [[text]])[0][0]
    assert answer.usage.completion_tokens >= 7
    again = asked(front.client(), max_tokens=3, seed=4)
    assert again.choices[0].message.content == text


def test_a_reward_that_is_no_number_amid_a_chain_does_not_end_it(fronted):
    """Such proposals are refused, and told; the chain keeps its state."""

    def partial(prompts, responses):
        rows = zip(letters(prompts, responses), responses, strict=True)
        return [[math.nan if "b" in t else r for r, t in zip(*row, strict=True)] for row in rows]

    front = fronted(mcmc(beta=0.5, steps=12), upstream=Table(), reward=partial, server="vllm")
    shown = {"infalign": {"candidates": True}}
    answers = [
        asked(front.client(), max_tokens=3, seed=seed, extra_body=shown).infalign
        for seed in range(4)
    ]
    assert any(answer["details"]["unscored"] for answer in answers)
    for answer in answers:
        assert "b" not in answer["texts"][answer["index"]]
        assert answer["reward"] is not None


def test_a_chain_needs_to_know_how_long_a_response_may_be(fronted):
    front = fronted(mcmc(beta=0.5, steps=2), upstream=Table(), reward=letters, server="vllm")
    client = front.client()
    with pytest.raises(openai.BadRequestError, match="max_tokens is missing"):
        asked(client)
    with pytest.raises(openai.BadRequestError, match="frequency_penalty counts what was written"):
        asked(client, max_tokens=3, frequency_penalty=0.5)


def test_an_upstream_that_tells_no_token_ids_is_told_off(fronted):
    front = fronted(mcmc(beta=0.5, steps=2), upstream=Counting(), server="vllm")
    with pytest.raises(openai.InternalServerError, match="tells no token ids"):
        asked(front.client(), max_tokens=3)
