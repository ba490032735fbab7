"""Answers on subsets of samples at hand: the same ones, and no pair of texts compared twice."""

import numpy as np
import pytest

from infalign.decoding.replaying import Pool, balanced_orders, replay, replay_all
from infalign.decoding.text_procedure import Scored
from infalign.decoding.voting import MajorityVote, MinimumBayesRisk, Pairwise
from infalign.prompts import Prompt
from infalign.protocols import Response

M = 12
TEXTS = [f"the {'film' if i % 3 else 'plot'} was {i % 8}" for i in range(M)]
POOL = Pool(
    Prompt("a", "x"),
    [Response(text, (i,)) for i, text in enumerate(TEXTS)],
    Scored(np.linspace(-1, 1, M)),
)


class Counting:
    """Which pairs of texts were compared; not symmetric."""

    def __init__(self):
        self.pairs = []
        self.__name__ = "counting"

    def __call__(self, text, right):
        self.pairs.append((text, right))
        return len(set(text) & set(right)) / len(text) + 0.1 * (text < right)


def answers(procedure, orders, run):
    return [(one.text, one.details, drawn) for one, drawn in run(procedure, orders)]


def one_by_one(procedure, orders):
    rng = np.random.default_rng(3)
    return [replay(procedure, POOL, order, rng) for order in orders]


def together(procedure, orders):
    return replay_all(procedure, POOL, orders, np.random.default_rng(3))


@pytest.mark.parametrize("beta", [None, 0.5])
def test_each_pair_is_compared_once_and_the_answers_stay(beta):
    """Measured on 60 subsets of 6: 121 comparisons; one by one 1,995."""
    count, again = Counting(), Counting()
    orders = balanced_orders(M, 6, 60, np.random.default_rng(0))
    found = answers(MinimumBayesRisk(6, Pairwise(count), beta), orders, together)
    assert found == answers(MinimumBayesRisk(6, Pairwise(again), beta), orders, one_by_one)
    assert len(count.pairs) == len(set(count.pairs)) == len(set(TEXTS)) ** 2
    assert len(again.pairs) > 5 * len(count.pairs)


def test_a_few_subsets_of_many_are_compared_by_themselves():
    count = Counting()
    orders = balanced_orders(M, 2, 12, np.random.default_rng(0))[:3]
    together(MinimumBayesRisk(2, Pairwise(count)), orders)
    assert len(count.pairs) <= 12


def test_names_of_utilities_and_other_procedures_are_answered_alike():
    orders = balanced_orders(M, 6, 60, np.random.default_rng(0))
    for procedure in (MinimumBayesRisk(6, "exact_match"), MajorityVote(6)):
        assert answers(procedure, orders, together) == answers(procedure, orders, one_by_one)


def test_a_utility_that_compares_nothing_is_refused():
    orders = balanced_orders(M, 6, 60, np.random.default_rng(0))
    with pytest.raises(ValueError, match="is not finite"):
        together(MinimumBayesRisk(6, Pairwise(lambda text, right: np.nan)), orders)
