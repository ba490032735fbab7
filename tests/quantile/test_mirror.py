"""Laws of mirror ascent: wherever another solver exists, it finds the same."""

import numpy as np
import pytest

from infalign.quantile.atoms.decoding import decode_of
from infalign.quantile.atoms.differentiating import by_complex_step, by_differences, gradient_of
from infalign.quantile.atoms.mirror import mirror_ascent, worth_against
from infalign.quantile.atoms.voting import MajorityVote
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    Identity,
    MetropolisHastings,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    median_of,
)
from infalign.quantile.ties import Ties
from infalign.quantile.tilting import atoms_kl, beta_for_atoms_kl, tilt_atoms
from infalign.quantile.win_rate import atomic_win_rate
from members import PROCEDURES, named


def atoms(seed, count, distinct=None):
    rng = np.random.default_rng(seed)
    rewards = rng.permutation(count) if distinct is None else rng.integers(0, distinct, count)
    return rng.dirichlet(4 * np.ones(count)), rewards.astype(float)


@pytest.mark.parametrize("procedure", PROCEDURES, ids=named)
@pytest.mark.parametrize("distinct", [None, 3])
def test_atomic_decoding_is_the_one_of_atomic_win_rate(procedure, distinct):
    reference, rewards = atoms(1, 6, distinct)
    policy = atoms(2, 6)[0]
    decode = decode_of(procedure, rewards, reference)
    decoded = decode(policy)
    assert np.isclose(decoded.sum(), 1, atol=1e-9)
    if hasattr(procedure, "rank_cdf"):
        won = decoded @ worth_against(decode(reference), rewards)
        rows = (x[None] for x in (policy, reference, rewards))
        assert np.isclose(won, atomic_win_rate(*rows, procedure)[0], atol=1e-13)
    together = decode(np.stack([policy, reference]))
    assert np.allclose(together, [decoded, decode(reference)], atol=1e-13)


@pytest.mark.parametrize("procedure", [p for p in PROCEDURES if hasattr(p, "rank_cdf")], ids=named)
@pytest.mark.parametrize("distinct", [None, 3])
def test_the_derivative_is_the_difference(procedure, distinct):
    """Also where the worth differs among responses the procedure cannot tell apart."""
    masses, rewards = atoms(3, 6, distinct)
    decode, worth = decode_of(procedure, rewards), np.sin(np.arange(6.0))
    exact = gradient_of(decode, masses)(masses, worth)
    rough = by_differences(decode, masses, worth)
    scale = 1 + np.abs(rough).max()
    assert np.allclose(exact - masses @ exact, rough - masses @ rough, atol=2e-6 * scale)


def test_the_complex_step_and_the_differences_agree_on_a_vote():
    masses, worth = atoms(4, 5)[0], np.arange(5.0)
    vote = MajorityVote(6).decoded_masses
    exact = by_complex_step(vote, masses, worth)
    assert np.allclose(exact, by_differences(vote, masses, worth), atol=1e-9)
    # What throws the imaginary part away is found out, and differences are taken.
    real = gradient_of(lambda m: vote(np.real(m)), masses)(masses, worth)
    assert np.allclose(real, exact, atol=1e-9)
    assert np.abs(exact).max() > 0.1


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4), median_of(3)], ids=named)
@pytest.mark.parametrize("kl", [0.1, 0.5])
def test_many_atoms_tend_to_the_continuum(procedure, kl):
    limit = optimal_transform(procedure, kl=kl)

    def found(count):
        rewards = np.arange(float(count))
        masses = np.full(count, 1 / count)
        return mirror_ascent(masses, decode_of(procedure, rewards), rewards, kl=kl, starts=1).best

    coarse, fine = found(30), found(120)
    assert abs(fine.win_rate - limit.win_rate) < abs(coarse.win_rate - limit.win_rate) / 8
    assert abs(fine.beta - limit.beta) < 0.02 * limit.beta
    middles = (np.arange(120) + 0.5) / 120
    phi = limit(middles)
    own = fine.training_rewards
    assert np.corrcoef(phi, own)[0, 1] > 0.9995
    assert np.corrcoef(middles, own)[0, 1] < 0.9995  # another transform is not that one


@pytest.mark.parametrize("procedure", [BestOfN(3), WorstOfN(3), median_of(5)], ids=named)
def test_beta_and_kl_are_two_ways_to_one_point(procedure):
    masses, rewards = atoms(5, 7)
    decode = decode_of(procedure, rewards)
    by_kl = mirror_ascent(masses, decode, rewards, kl=0.2).best
    by_beta = mirror_ascent(masses, decode, rewards, beta=by_kl.beta).best
    assert np.isclose(by_kl.kl, 0.2, rtol=1e-9)
    assert np.allclose(by_kl.masses, by_beta.masses, atol=1e-9)
    for point in (by_kl, by_beta):
        assert point.residual < 1e-10
        tilted = tilt_atoms(masses[None], point.training_rewards[None], point.beta)[0]
        assert np.abs(tilted - point.masses).sum() < 1e-10
        assert np.isclose(atoms_kl(masses[None], point.masses[None])[0], point.kl)


def test_the_envelope_theorem():
    masses, rewards = atoms(6, 8)
    decode = MajorityVote(5).decoded_masses
    low, middle, high = (
        mirror_ascent(masses, decode, rewards, kl=kl, starts=2).best for kl in (0.199, 0.2, 0.201)
    )
    assert np.isclose((high.win_rate - low.win_rate) / 0.002, middle.beta, rtol=1e-4)


def test_no_other_policy_at_the_same_kl_wins_more():
    masses, rewards = atoms(7, 6, distinct=4)
    decode = decode_of(BestOfN(4), rewards)
    best = mirror_ascent(masses, decode, rewards, kl=0.3).best
    worth = worth_against(decode(masses), rewards)
    rng = np.random.default_rng(0)
    for _ in range(300):
        tilt = np.log(best.masses / masses) + rng.choice([0.03, 1.0]) * rng.normal(size=6)
        if -np.log(masses[np.argmax(tilt)]) > 0.31:
            beta = beta_for_atoms_kl(masses[None], tilt[None], 0.3)
            other = tilt_atoms(masses[None], tilt[None], beta)[0]
            assert decode(other) @ worth < best.win_rate + 1e-12


def test_several_stationary_points_are_all_reported():
    """A vote between two wrong answers and a right one nobody gives yet: W is convex there."""
    reference = np.array([0.6, 0.25, 0.15])
    decode = MajorityVote(15).decoded_masses
    optimum = mirror_ascent(reference, decode, np.array([0.0, 0.0, 1.0]), beta=1.2, starts=3)
    assert len(optimum.stationary) >= 2
    values = [p.win_rate - p.beta * p.kl for p in optimum.stationary]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 1e-3
    assert optimum.best is optimum.stationary[0]
    one = mirror_ascent(reference, lambda m: m, np.array([0.0, 0.0, 1.0]), beta=1.2, starts=3)
    assert len(one.stationary) == 1  # without a vote W is linear, and there is one


@pytest.mark.parametrize("procedure", [RewindAndRepeat(0.4, 3), SoftBestOfN(3, 0.3)], ids=named)
def test_quantile_procedures_on_atoms(procedure):
    """The decoded law is what sampling finds: 4.5 standard errors, 5 answers; seed fixed."""
    reference, rewards = np.array([0.1, 0.3, 0.25, 0.2, 0.15]), np.arange(5.0)
    policy = np.array([0.3, 0.1, 0.2, 0.1, 0.3])
    decode, rng, m = decode_of(procedure, rewards, reference), np.random.default_rng(1), 40_000
    decoded = decode(policy)
    edges = np.cumsum(reference) - reference
    middles = edges + reference / 2
    draws = rng.choice(5, size=(m, procedure.candidates), p=policy)
    picked = procedure.select(middles[draws], rng)
    found = np.bincount(draws[np.arange(m), picked], minlength=5) / m
    assert (np.abs(found - decoded) < 4.5 * np.sqrt(decoded / m)).all()
    assert (np.abs(found - policy) > 4.5 * np.sqrt(decoded / m)).any()


QUANTILE_PROCEDURES = [RewindAndRepeat(0.45, 3), SoftBestOfN(4, 0.3), MetropolisHastings(3)]


@pytest.mark.parametrize("procedure", QUANTILE_PROCEDURES, ids=named)
@pytest.mark.parametrize("masses", [(0.7, 0.3), (0.2, 0.3, 0.1, 0.4)])
def test_the_optimum_for_a_discrete_reward_is_the_one_on_the_interval(procedure, masses):
    """Newton's method on [0,1] with ties, and mirror ascent on atoms: two ways, nine digits."""
    reference, rewards = np.array(masses), np.arange(float(len(masses)))
    decode = decode_of(procedure, rewards, reference)
    on_atoms = mirror_ascent(reference, decode, rewards, kl=0.3, starts=2).best
    on_interval = optimal_transform(procedure, kl=0.3, ties=Ties.of_masses(reference))
    assert abs(on_atoms.win_rate - on_interval.win_rate) < 1e-9
    assert abs(on_atoms.beta - on_interval.beta) < 1e-9
    untied = optimal_transform(procedure, kl=0.3)
    assert abs(untied.win_rate - on_atoms.win_rate) > 0.02


def test_a_judge_of_its_own_changes_the_optimum():
    masses, proxy = atoms(8, 6)
    gold = np.random.default_rng(9).permutation(6).astype(float)
    decode = decode_of(BestOfN(4), proxy)
    judged = mirror_ascent(masses, decode, gold, kl=0.3).best
    fooled = mirror_ascent(masses, decode, proxy, kl=0.3).best
    worth = worth_against(decode(masses), gold)
    assert judged.win_rate > decode(fooled.masses) @ worth + 0.01


def test_without_a_procedure_calibration_is_optimal():
    masses, rewards = atoms(10, 6, distinct=4)
    best = mirror_ascent(masses, decode_of(Identity(), rewards), rewards, kl=0.3).best
    quantiles = worth_against(masses, rewards)
    beta = beta_for_atoms_kl(masses[None], quantiles[None], 0.3)
    assert np.allclose(best.masses, tilt_atoms(masses[None], quantiles[None], beta)[0], atol=1e-10)


def test_what_cannot_be_is_refused():
    masses, rewards = atoms(11, 4)
    decode = decode_of(BestOfN(2), rewards)
    for both in ({}, {"beta": 0.1, "kl": 0.1}):
        with pytest.raises(ValueError, match="exactly one"):
            mirror_ascent(masses, decode, rewards, **both)
    with pytest.raises(ValueError, match="A mean KL of 9"):
        mirror_ascent(masses, decode, rewards, kl=9.0)
    with pytest.raises(ValueError, match="positive and sum to 1"):
        mirror_ascent(masses / 2, decode, rewards, beta=0.1)
    with pytest.raises(ValueError, match="one of each"):
        mirror_ascent(masses, decode, rewards[:3], beta=0.1)
    with pytest.raises(ValueError, match="not finite"):
        mirror_ascent(masses, decode, rewards * np.nan, beta=0.1)
    with pytest.raises(ValueError, match="give reference_masses"):
        decode_of(SoftBestOfN(3, 0.3), rewards)
    with pytest.raises(ArithmeticError, match="came to rest"):
        mirror_ascent(masses, decode, rewards, beta=0.1, steps=0, tolerance=1e-30)
