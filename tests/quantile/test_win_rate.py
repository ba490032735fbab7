"""Laws of the win rate, on [0,1] and on finitely many atoms."""

import itertools

import numpy as np
import pytest

from infalign.quantile import procedures, transforms
from infalign.quantile.procedures import BestOfN, OrderStatistic, WorstOfN, median_of
from infalign.quantile.tilting import TiltedPolicy, tilt_atoms
from infalign.quantile.transforms import Exponential, Log
from infalign.quantile.win_rate import atomic_win_rate, frontier, reference_win_rate, win_rate
from members import POLICIES, PROCEDURES, named

every_procedure = pytest.mark.parametrize("procedure", PROCEDURES, ids=named)
every_policy = pytest.mark.parametrize("policy", POLICIES, ids=named)


@every_procedure
def test_the_reference_against_itself_is_a_half(procedure):
    reference = TiltedPolicy(transforms.Identity(), 1e12)
    assert abs(win_rate(reference, procedure) - 0.5) < 1e-10
    assert abs(win_rate(POLICIES[0], procedure) - 0.5) > 0.05


@every_procedure
def test_monte_carlo_agrees(procedure):
    """Within 4.5 standard errors, for 26 procedures: false alarm under 2e-4; seed fixed."""
    rng, policy, m = np.random.default_rng(6), POLICIES[2], 40_000
    ours = policy.sample((m, procedure.candidates), rng)
    theirs = rng.random((m, procedure.candidates))
    a = np.take_along_axis(ours, procedure.select(ours, rng)[:, None], 1)
    b = np.take_along_axis(theirs, procedure.select(theirs, rng)[:, None], 1)
    measured, error = (a > b).mean(), max((a > b).std(), 1e-3) / np.sqrt(m)
    assert abs(measured - win_rate(policy, procedure)) < 4.5 * error
    assert abs(measured - win_rate(TiltedPolicy(policy.transform, 0.2), procedure)) > 4.5 * error


@every_policy
def test_the_carried_win_rate_of_an_optimum_is_the_integral(policy):
    if policy.name == "optimal":
        transform = policy.transform
        won = win_rate(policy, transform.procedure, agreement=transform.agreement)
        assert abs(won - transform.win_rate) < 1e-10


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("m", [1.5, 4.0, 54.0])
def test_log_wins_the_same_after_every_best_of_n(n, m):
    policy = TiltedPolicy(Log(), 1 / (m - 1))
    assert abs(win_rate(policy, BestOfN(n)) - m / (m + 1)) < 1e-12


def test_different_procedures_on_the_two_sides():
    policy = TiltedPolicy(Log(), 1 / 3)  # best-of-4 of the reference, decoded best-of-2: best-of-8
    assert abs(win_rate(policy, BestOfN(2), BestOfN(16)) - 8 / 24) < 1e-12
    assert abs(reference_win_rate(BestOfN(3), BestOfN(1)) - 3 / 4) < 1e-12
    assert abs(reference_win_rate(WorstOfN(3), procedures.Identity()) - 1 / 4) < 1e-12


def test_small_kl_gain_is_the_square_root_law():
    """W − ½ ≈ √(2·KL·V), V the variance of ∫g²."""
    u = (np.arange(200_000) + 0.5) / 200_000
    for procedure in (BestOfN(4), WorstOfN(3)):
        phi = np.cumsum(procedure.rank_density(u) ** 2) / len(u)
        gain = frontier(procedure, [1e-6])[0] - 0.5
        assert np.isclose(gain, np.sqrt(2e-6 * phi.var()), rtol=3e-3)


def test_frontier_of_a_transform_and_of_the_limit():
    kls = [0.0, 0.1, 0.5, 2.0]
    limit, log = frontier(BestOfN(4), kls), frontier(BestOfN(4), kls, Log())
    assert limit[0] == log[0] == 0.5
    assert (limit[1:] > log[1:]).all()
    assert (np.diff(limit) > 0).all()
    with pytest.raises(ValueError, match="'log'"):
        frontier(BestOfN(4), kls, "log")


def random_atoms(seed, prompts, count):
    rng = np.random.default_rng(seed)
    masses = rng.dirichlet(np.ones(count), size=(2, prompts))
    return masses[0], masses[1], rng.integers(0, max(2, count // 2), (prompts, count)).astype(float)


def by_enumeration(policy, reference, rewards, procedure, reference_procedure):
    """The definition: all N-tuples on both sides, the rank drawn from p, ties half."""

    def decoded(masses, rule):
        law: dict[float, float] = {}
        for picks in itertools.product(range(len(masses)), repeat=rule.candidates):
            ordered = sorted(rewards[list(picks)])
            for p, reward in zip(rule.rank_probabilities, ordered, strict=True):
                law[reward] = law.get(reward, 0.0) + p * np.prod(masses[list(picks)])
        return law

    ours, theirs = decoded(policy, procedure), decoded(reference, reference_procedure)
    return sum(
        p * q * (1.0 if a > b else 0.5 if a == b else 0.0)
        for a, p in ours.items()
        for b, q in theirs.items()
    )


@pytest.mark.parametrize(
    ("procedure", "other"),
    [
        (procedures.Identity(), procedures.Identity()),
        (BestOfN(3), BestOfN(3)),
        (WorstOfN(2), WorstOfN(2)),
        (median_of(3), BestOfN(2)),
        (OrderStatistic((0.2, 0.3, 0.5)), WorstOfN(3)),
    ],
    ids=named,
)
def test_atomic_win_rate_is_the_enumeration(procedure, other):
    policy, reference, rewards = random_atoms(7, prompts=4, count=5)
    fast = atomic_win_rate(policy, reference, rewards, procedure, other)
    slow = [
        by_enumeration(p, q, r, procedure, other)
        for p, q, r in zip(policy, reference, rewards, strict=True)
    ]
    assert np.allclose(fast, slow, atol=1e-13)
    # Without merging ties the answer would differ: rewards told apart by a hair are other rewards.
    split = rewards + 1e-9 * np.arange(5)
    unmerged = atomic_win_rate(policy, reference, split, procedure, other)
    assert not np.allclose(unmerged, slow, atol=1e-3)


def test_many_atoms_tend_to_the_continuum():
    transform, beta = Exponential(10.0), 0.1

    def off_by(count):
        masses, edges = np.full((1, count), 1 / count), np.linspace(0, 1, count + 1)
        phi = transform.interval_mean(edges[:-1], edges[1:])[None]
        tilted, rewards = tilt_atoms(masses, phi, beta), np.arange(count, dtype=float)[None]
        continuum = win_rate(TiltedPolicy(transform, beta), BestOfN(4))
        return abs(atomic_win_rate(tilted, masses, rewards, BestOfN(4))[0] - continuum)

    assert off_by(8000) < 3e-6
    assert 3.9 < off_by(4000) / off_by(8000) < 4.1  # second order in the size of the atoms


def test_order_of_the_atoms_does_not_matter():
    policy, reference, rewards = random_atoms(8, prompts=3, count=9)
    shuffle = np.random.default_rng(0).permutation(9)
    plain = atomic_win_rate(policy, reference, rewards, BestOfN(4))
    mixed = atomic_win_rate(
        policy[:, shuffle], reference[:, shuffle], rewards[:, shuffle], BestOfN(4)
    )
    assert np.allclose(plain, mixed, atol=1e-14)


def test_bad_atoms_are_refused():
    policy, reference, rewards = random_atoms(9, prompts=2, count=3)
    with pytest.raises(ValueError, match="Shapes differ"):
        atomic_win_rate(policy, reference, rewards[:, :2], BestOfN(2))
    rewards[1, 0] = np.nan
    with pytest.raises(ValueError, match="prompt 1 is NaN"):
        atomic_win_rate(policy, reference, rewards, BestOfN(2))
