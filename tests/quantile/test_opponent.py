"""What an answer is up against: closed forms and simulation of judges and ties."""

import numpy as np
import pytest
from scipy import special

from infalign.quantile.agreement import copula_correlation
from infalign.quantile.opponent import Opponent
from infalign.quantile.procedures import (
    BestOfN,
    Identity,
    MetropolisHastings,
    RewindAndRepeat,
    SoftBestOfN,
    Uniform,
    WorstOfN,
)
from infalign.quantile.ties import Ties
from members import PROCEDURES, named

U = np.array([1e-6, 0.03, 0.3, 0.5, 0.8, 0.99, 1 - 1e-6])


@pytest.mark.parametrize("procedure", PROCEDURES, ids=named)
def test_with_one_reward_it_is_the_decoded_reference(procedure):
    loss = Opponent(procedure).loss(U, 1 - U)
    assert np.allclose(1 - loss, procedure.decoded_cdf(Uniform(), U), atol=1e-9)


def test_small_losses_keep_their_digits():
    x = np.array([1e-30, 1e-12])
    assert np.allclose(Opponent(BestOfN(4)).loss(1 - x, x), 4 * x, rtol=1e-11)


@pytest.mark.parametrize("agreement", [0.999, 0.7, 0.1, -0.4])
def test_against_a_single_sample_the_judge_is_a_normal_law(agreement):
    """h(u) = N(r·z/√(2−r²))."""
    r, z = copula_correlation(agreement), special.ndtri(U)
    expected = special.ndtr(-r * z / np.sqrt(2 - r**2))
    loss = Opponent(Identity(), agreement).loss(U, 1 - U)
    assert np.allclose(loss, expected, atol=1e-10 if agreement < 0.99 else 1e-7)


def judged(quantiles, agreement, rng):
    """Gold scores of answers whose quantiles under the selecting reward are given."""
    r = copula_correlation(agreement)
    return r * special.ndtri(quantiles) + np.sqrt(1 - r**2) * rng.normal(size=quantiles.shape)


def simulated_loss(opponent, u, rng, draws=200_000):
    """Chance to be judged worse, by playing it."""
    ties, procedure = opponent.ties, opponent.procedure
    candidates = rng.random((draws, procedure.candidates))
    chosen = procedure.select(ties.middle(candidates), rng)
    theirs = np.take_along_axis(candidates, chosen[:, None], axis=1)[:, 0]
    tie = ties.index(u)
    own = np.full(draws, float(u))
    if tie >= 0:
        own = rng.uniform(ties.starts[tie], ties.ends[tie], draws)
    if opponent.agreement == 1:
        ours, theirs = ties.middle(own), ties.middle(theirs)
        return np.mean((ours < theirs) + 0.5 * (ours == theirs))
    return np.mean(judged(own, opponent.agreement, rng) < judged(theirs, opponent.agreement, rng))


@pytest.mark.parametrize(
    "opponent",
    [
        Opponent(BestOfN(4), 0.6),
        Opponent(WorstOfN(3), 0.3),
        Opponent(RewindAndRepeat(0.6, 3), 0.8),
        Opponent(SoftBestOfN(4, 0.1), 0.8),
        Opponent(MetropolisHastings(3), -0.5),
        Opponent(BestOfN(4), 1.0, Ties.pass_fail(0.3)),
        Opponent(WorstOfN(4), 1.0, Ties(((0.0, 0.5), (0.6, 0.7)))),
        Opponent(RewindAndRepeat(0.5, 3), 1.0, Ties.pass_fail(0.3)),
        Opponent(SoftBestOfN(4, 0.2), 1.0, Ties(((0.2, 0.9),))),
        Opponent(BestOfN(4), 0.6, Ties.pass_fail(0.3)),
    ],
    ids=lambda o: f"{o.procedure.name}-{o.agreement}-{len(o.ties.intervals)}",
)
def test_playing_it_gives_the_same(opponent):
    """Standard error 0.0011; 4.5 of them, 30 comparisons: a fresh seed fails one in 5,000."""
    rng = np.random.default_rng(3)
    for u in (0.25, 0.65, 0.95):
        at = np.array([u])
        said = float(opponent.loss(at, 1 - at)[0])
        assert abs(simulated_loss(opponent, np.array(u), rng) - said) < 0.005


def test_another_judge_or_other_ties_would_be_noticed():
    """Negative control of the playing above."""
    rng, at = np.random.default_rng(3), np.array([0.95])
    played = simulated_loss(Opponent(BestOfN(4), 0.6), np.array(0.95), rng)
    for wrong in (Opponent(BestOfN(4), 0.7), Opponent(BestOfN(3), 0.6), Opponent(BestOfN(4))):
        assert abs(float(wrong.loss(at, 1 - at)[0]) - played) > 0.005


def test_a_judge_who_does_not_care_and_one_who_is_contrary():
    assert np.allclose(Opponent(BestOfN(4), 0.0).loss(U, 1 - U), 0.5)
    contrary = Opponent(BestOfN(4), -1.0).loss(U, 1 - U)
    assert np.allclose(contrary, U**4, atol=1e-14)


@pytest.mark.parametrize("agreement", [-1.01, 1.5, float("nan")])
def test_an_agreement_is_a_correlation(agreement):
    with pytest.raises(ValueError, match="between −1"):
        Opponent(BestOfN(2), agreement)
