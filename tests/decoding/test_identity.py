"""Two procedures of one name are told apart where anything in them differs."""

import functools
import json

import numpy as np
import pytest

from infalign.decoding.blockwise import BlockwiseBestOfN
from infalign.decoding.identity import procedure_identity
from infalign.decoding.mcmc import MCMC, CalibratedTilt, RewardTilt
from infalign.decoding.voting import MajorityVote, MinimumBayesRisk, Pairwise
from infalign.policies import TabularLM
from infalign.quantile.procedures import BestOfN, OrderStatistic
from infalign.quantile.transforms import Identity, Log


def first(text):
    return text[:1]


def upto(length):
    def cut(text):
        return text[:length]

    return cut


def part(text, length):
    return text[:length]


def again():
    def inner(text):
        return inner(text[1:]) if text.startswith(" ") else text

    return inner


class Cut:
    """No dataclass, and can be called."""

    def __init__(self, length):
        self.length = length

    def __call__(self, text):
        return text[: self.length]

    def method(self, text):
        return self(text)


VOTES = [
    "boxed",
    "text",
    first,
    again(),
    str.strip,
    str.lower,
    upto(1),
    upto(2),
    functools.partial(part, length=1),
    functools.partial(part, length=2),
    Cut(1),
    Cut(2),
    Cut(1).method,
    Cut(2).method,
]
OTHERS = [
    BestOfN(4),
    BestOfN(3),
    OrderStatistic((0.5, 0.5)),
    OrderStatistic((0.25, 0.75)),
    BlockwiseBestOfN(2, 4),
    BlockwiseBestOfN(2, 4, rollouts=2),
    MajorityVote(8, at_once=2),
    MinimumBayesRisk(4, "exact_match"),
    MinimumBayesRisk(4, "exact_match", beta=0.5),
    MinimumBayesRisk(4, Pairwise(max)),
    MinimumBayesRisk(4, Pairwise(min)),
    MCMC(RewardTilt(0.5), rounds=8),
    MCMC(RewardTilt(0.5), rounds=8, chains=2),
    MCMC(RewardTilt(0.5), rounds=8, burn_in=2),
    MCMC(CalibratedTilt(Identity(), 0.5), rounds=8),
    MCMC(CalibratedTilt(Log(), 0.5), rounds=8),
]
ALL = [*(MajorityVote(8, vote) for vote in VOTES), *OTHERS]


def test_whatever_differs_is_told():
    """All votes of 8 have one name."""
    assert len({procedure.name for procedure in ALL[: len(VOTES)]}) == 1
    assert len({json.dumps(procedure_identity(procedure)) for procedure in ALL}) == len(ALL)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MajorityVote(np.int64(8), upto(2)),
        lambda: MajorityVote(8, Cut(1)),
        lambda: MajorityVote(8, Cut(1).method),
        lambda: MajorityVote(8, functools.partial(part, length=1)),
        lambda: MinimumBayesRisk(4, Pairwise(first)),
        lambda: MCMC(CalibratedTilt(Log(), 0.5), rounds=8),
    ],
)
def test_what_is_made_again_is_the_same(make):
    one, two = (json.dumps(procedure_identity(make())) for _ in range(2))
    assert one == two
    assert " at 0x" not in one


def test_models_and_tables_within_are_told_by_what_they_hold():
    def voted(seed):
        lm = TabularLM.random(("x",), ("a",), 2, np.random.default_rng(seed))
        return json.dumps(procedure_identity(MinimumBayesRisk(2, Holding(lm, lm.laws))))

    assert voted(0) == voted(0)
    assert voted(0) != voted(1)


class Holding:
    name = "holding"

    def __init__(self, lm, laws):
        self.fingerprint = lm.fingerprint
        self.laws = laws

    def __call__(self, texts, right):
        return np.zeros((len(texts), len(right)))
