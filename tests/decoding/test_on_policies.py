"""Selection, blocks and votes on every kind of policy, or a refusal that says why not."""

import dataclasses

import numpy as np
import pytest

from infalign.decoding import (
    BlockwiseBestOfN,
    MajorityVote,
    MinimumBayesRisk,
    Selection,
    WeightedVote,
    decode,
)
from infalign.policies.tabular_lm import TabularLM
from infalign.prompts import Prompt
from infalign.protocols import Continuer, Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN, RewindAndRepeat, SoftBestOfN, WorstOfN

PROMPTS = [Prompt.from_text(text) for text in ("the film is", "a", "it is a lazy")]
PROCEDURES = {
    "best": Selection(BestOfN(4)),
    "worst": Selection(WorstOfN(4)),
    "soft": Selection(SoftBestOfN(4, 0.1)),
    "rewind": Selection(RewindAndRepeat(0.6, 5)),
    "best, one by one": Selection(BestOfN(4), at_once=1, maximum=100.0),
    "majority": MajorityVote(5, at_once=2),
    "weighted": WeightedVote(4, beta=0.5),
    "risk": MinimumBayesRisk(4, "exact_match"),
    "blocks": BlockwiseBestOfN(3, block=2),
    "one block": BlockwiseBestOfN(3),
}


class Vowels:
    """How many vowels a text has."""

    name = "vowels"

    def __call__(self, prompts, responses):
        count = [
            [float(sum(letter in "aeiou" for letter in text)) for text in row] for row in responses
        ]
        return np.array(count)


@pytest.fixture(params=["tabular", "tabular_lm", "causal_lm", "openai_server"])
def policy(request):
    """One of each kind."""
    rng = np.random.default_rng(0)
    lm = TabularLM.random([prompt.text for prompt in PROMPTS], ("a", "b", "e"), 4, rng)
    if request.param in ("tabular", "tabular_lm"):
        yield lm.table() if request.param == "tabular" else lm
        return
    pytest.importorskip("torch")
    local = request.getfixturevalue("make_lm")(Sampling(temperature=0.8, max_new_tokens=6))
    if request.param == "causal_lm":
        yield local
        return
    pytest.importorskip("openai")
    from infalign.policies.openai_server import Connection, OpenAIServer
    from servers import token_server

    with token_server(local) as (url, _):
        connection = Connection((url,), read_timeout=30.0)
        yield OpenAIServer("tiny", local.sampling, connection, codec=local.codec)


@pytest.fixture
def calibration(policy):
    """The rewards of 16 responses of the policy itself."""
    texts = [prompt.text for prompt in PROMPTS]
    drawn = policy.sample(texts, 16, np.random.default_rng(1))
    rewards = Vowels()(texts, [[response.text for response in row] for row in drawn])
    return EmpiricalCalibration(tuple(prompt.id for prompt in PROMPTS), rewards)


@pytest.mark.parametrize("name", PROCEDURES)
def test_every_procedure_answers_or_says_why_it_cannot(policy, calibration, name):
    procedure = PROCEDURES[name]

    def answers():
        rng = np.random.default_rng(2)
        return decode(policy, PROMPTS, Vowels(), procedure, calibration=calibration, rng=rng)

    if procedure.needs_beginnings and not isinstance(policy, Continuer):
        with pytest.raises(TypeError, match="goes on from the beginning"):
            answers()
        return
    decoded = answers()
    assert [one.prompt_id for one in decoded] == [prompt.id for prompt in PROMPTS]
    for one in decoded:
        assert one.text == one.candidates[one.index].text
        assert len(one.candidates) == len(one.rewards)
        assert one.budget.responses == len(one.candidates)
        has_tokens = all(response.token_ids for response in one.candidates)
        assert (one.budget.tokens > 0) == has_tokens
    again = answers()
    assert [dataclasses.replace(one, rewards=()) for one in decoded] == [
        dataclasses.replace(one, rewards=()) for one in again
    ]
