"""What a sample is worth to the decoded answer: exact gradients of W, and estimates of them.

On a table everything can be summed: W and its gradient over all answers, and the estimator's
expectation over all samples it may see.
"""

import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infalign.decoding import Selection
from infalign.decoding.replaying import Pool
from infalign.decoding.text_procedure import Scored
from infalign.decoding.voting.majority import MajorityVote
from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.atoms import voting
from infalign.quantile.atoms.decoding import RankDecoding
from infalign.quantile.atoms.differentiating import by_differences
from infalign.quantile.procedures import BestOfN, SoftBestOfN, WorstOfN
from infalign.training.first_variation import Opponents, first_variation, leave_one_out

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)
PROMPT = Prompt("a", "x")
MASSES = np.array([0.1, 0.4, 0.3, 0.2])
REWARDS = np.array([0.3, -1.0, 2.0, 0.9])
QUANTILES = np.array([0.45, 0.2, 0.9, 0.7])
THEIRS = np.array([-1.0, 0.3, 0.3, 0.9, 2.0])
"""Rewards of the reference's answers."""
OPPONENTS = Opponents({"a": THEIRS})
WORTH = OPPONENTS.worth("a", REWARDS)


def pool(columns):
    columns = np.array(columns)
    responses = [Response(f"y{c}", (int(c),)) for c in columns]
    return Pool(PROMPT, responses, Scored(REWARDS[columns], QUANTILES[columns]))


def expected(procedure, m, seeds=1, masses=MASSES, estimate=first_variation):
    """E[a | y] of each response y, over all m samples there can be; and its standard error.

    The latter is that of the procedure's own choices, repeated with so many seeds.
    """
    found = np.zeros((seeds, len(masses)))
    rng = np.random.default_rng(5)
    for rest in itertools.product(range(len(masses)), repeat=m - 1):
        weight = math.prod(masses[list(rest)])
        for y in range(len(masses)):
            for seed in range(seeds):
                one = estimate(procedure, pool((y, *rest)), OPPONENTS, 1000, rng)
                found[seed, y] += weight * one.advantages[0]
    return found.mean(0), found.std(0, ddof=1) / math.sqrt(seeds) if seeds > 1 else None


def centred(gradient, masses=MASSES):
    return gradient - masses @ gradient


@pytest.mark.parametrize("make", [BestOfN, WorstOfN])
@pytest.mark.parametrize(("n", "m"), [(2, 3), (3, 4), (2, 4)])
def test_rank_procedures_agree_with_the_first_variation_of_w(make, n, m):
    """Measured: 2e-15 between the estimator's expectation and the derivative in closed form."""
    exact = RankDecoding(make(n), REWARDS).pullback(MASSES, WORTH)
    found, _ = expected(Selection(make(n)), m)
    np.testing.assert_allclose(found, centred(exact), atol=1e-12)


def test_what_is_agreed_with_is_the_transform_of_many_responses():
    """Φ(u) = −N²·∫_u¹ v^(2N−2) dv at the reference; measured with 500 responses: 1.5e-6."""
    n, count = 3, 500
    u = (np.arange(count) + 0.5) / count
    masses = np.full(count, 1 / count)
    decoding = RankDecoding(BestOfN(n), np.arange(count))
    decoded = decoding(masses)
    found = decoding.pullback(masses, np.cumsum(decoded) - decoded / 2)
    phi = n**2 * (u ** (2 * n - 1) - 1) / (2 * n - 1)
    assert np.abs(centred(found, masses) - centred(phi, masses)).max() < 1e-5


def test_best_of_n_is_the_known_gradient_of_max_at_k():
    """arXiv:2505.15201: s_i = Σ_{j≥i} m_ij·g_j / C(n, k), sorted; less the leave-one-out mean."""
    rng = np.random.default_rng(3)
    m, k = 7, 3
    g = np.sort(rng.normal(size=m))
    weights = np.zeros((m, m))
    for i in range(m):
        weights[i, i] = math.comb(i, k - 1)
        for j in range(i + 1, m):
            weights[i, j] = math.comb(j - 1, k - 2)
    known = weights @ g / math.comb(m, k)
    subsets = list(itertools.combinations(range(m), k))
    used = np.array([[i in subset for i in range(m)] for subset in subsets])
    best = np.array([g[max(subset)] for subset in subsets])
    without = np.array([best[~used[:, i]].mean() for i in range(m)])
    np.testing.assert_allclose(leave_one_out(best, used) / m, known - k / m * without, atol=1e-14)


def soft_law(masses, n, temperature):
    """T(π) of soft best-of-N, over all candidates there can be."""
    law = np.zeros_like(masses)
    for drawn in itertools.product(range(len(masses)), repeat=n):
        weights = np.exp(QUANTILES[list(drawn)] / temperature)
        for place, column in enumerate(drawn):
            law[column] += math.prod(masses[list(drawn)]) * weights[place] / weights.sum()
    return law


def majority_law(masses, n):
    return voting.MajorityVote(n).decoded_masses(masses)


LAWS = {
    "soft": (Selection(SoftBestOfN(2, 0.3)), lambda m: soft_law(m, 2, 0.3)),
    "majority": (MajorityVote(3), lambda m: majority_law(m, 3)),
    "settled": (MajorityVote(3, at_once=1), lambda m: majority_law(m, 3)),
}


@pytest.mark.parametrize("name", LAWS)
def test_other_procedures_agree_with_the_derivative_of_their_law(name):
    """Student's t, 39 degrees of freedom: |t| > 6 has false alarms of 6e-7, times 4 responses."""
    procedure, law = LAWS[name]
    exact = centred(by_differences(lambda rows: np.apply_along_axis(law, -1, rows), MASSES, WORTH))
    found, error = expected(procedure, procedure.most + 1, seeds=40)
    assert np.abs((found - exact) / error).max() < 6
    assert 6 * error.max() < 0.3 * np.abs(exact).max(), "a gradient half as long would be noticed"


def test_without_what_others_do_without_it_the_gradient_is_wrong():
    """Negative control: a baseline that y takes part in shortens the gradient by what it adds."""
    exact = centred(RankDecoding(BestOfN(2), REWARDS).pullback(MASSES, WORTH))
    subsets = list(itertools.combinations(range(3), 2))
    used = np.array([[i in subset for i in range(3)] for subset in subsets])
    wrong = np.zeros(4)
    for columns in itertools.product(range(4), repeat=3):
        best = [max((columns[i] for i in subset), key=REWARDS.__getitem__) for subset in subsets]
        values = WORTH[best]
        advantage = 2 * (values @ used / 2 - values.mean())
        wrong[columns[0]] += math.prod(MASSES[list(columns[1:])]) * advantage[0]
    assert np.abs(wrong - exact).max() > 0.1
