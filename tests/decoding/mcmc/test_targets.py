"""Targets against exact laws: tilts compose, and best-of-N is one of them."""

import warnings

import numpy as np
import pytest

from infalign.decoding import Ranks, Scored, decode
from infalign.decoding.mcmc import (
    MCMC,
    BestOfNTilt,
    CalibratedTilt,
    RewardTilt,
    best_of_n_log_ratio,
    compose_betas,
    mcmc,
)
from infalign.policies import Alignment, TabularPolicy
from infalign.quantile.calibration import Calibration, EmpiricalCalibration
from infalign.quantile.tilting import tilt_atoms
from infalign.quantile.transforms import Identity, Log

EXACT = 1e-12


def atoms(levels, seed=0, size=60):
    """Masses, and rewards of so many values: F₋ and F of each response."""
    rng = np.random.default_rng(seed)
    masses = rng.dirichlet(np.ones(size))
    rewards = rng.permuted(np.resize(np.arange(levels), size)).astype(float)
    below = np.array([masses[rewards < r].sum() for r in rewards])
    upto = np.array([masses[rewards <= r].sum() for r in rewards])
    return masses, rewards, below, np.minimum(upto, 1.0)


def best_of(masses, rewards, n):
    """The law of best-of-n with ties broken fairly, by enumeration of the candidates."""
    if n == 1:
        return masses
    law, size = np.zeros(len(masses)), len(masses)
    for drawn in np.ndindex(*[size] * n):
        values = rewards[list(drawn)]
        top = [c for c, v in zip(drawn, values, strict=True) if v == values.max()]
        for c in top:
            law[c] += masses[list(drawn)].prod() / len(top)
    return law


@pytest.mark.parametrize("n", [2, 3])
def test_best_of_n_is_a_tilt_by_enumeration(n):
    """F4 against all 12ⁿ draws, with atoms of several responses."""
    masses, rewards, below, upto = atoms(levels=4, size=12)
    tilted = tilt_atoms(masses[None], best_of_n_log_ratio(below, upto, n)[None], 1.0)[0]
    assert np.abs(tilted - best_of(masses, rewards, n)).sum() <= EXACT


@pytest.mark.parametrize("n", [2, 4, 8])
@pytest.mark.parametrize("levels", [2, 5, 60])
def test_best_of_n_is_a_tilt(n, levels):
    """QA-5, F4 with atoms: the mass of every reward is F^N − F₋^N. ≤ 1e-12."""
    masses, rewards, below, upto = atoms(levels)
    tilted = tilt_atoms(masses[None], best_of_n_log_ratio(below, upto, n)[None], 1.0)[0]
    for value in set(rewards):
        here = rewards == value
        share = masses[here] / masses[here].sum()
        mass = upto[here][0] ** n - below[here][0] ** n
        assert np.abs(tilted[here] - share * mass).sum() <= EXACT


def test_the_mid_rank_is_exact_at_two_only():
    """QA-5: (N − 1)·log of the mid-rank. 6e-17 at N = 2; TV 0.014, 0.013 at 4, 8."""
    masses, _, below, upto = atoms(levels=4)
    off = []
    for n in (2, 4, 8):
        scored = Scored(np.zeros(60), quantiles=(below + upto) / 2)
        tilted = tilt_atoms(masses[None], BestOfNTilt(n).log_weight(scored)[None], 1.0)[0]
        exact = tilt_atoms(masses[None], best_of_n_log_ratio(below, upto, n)[None], 1.0)[0]
        off.append(np.abs(tilted - exact).sum() / 2)
    assert off[0] <= EXACT
    assert 1e-3 < off[1] < 0.1
    assert 1e-3 < off[2] < 0.1


def test_without_atoms_it_is_the_tilt_by_log_u():
    """F4: α = 1/(N − 1)."""
    u = np.array([0.1, 0.4, 0.9])
    ratio = best_of_n_log_ratio(u, u, 4)
    np.testing.assert_allclose(ratio, np.log(4) + Log()(u) * 3, rtol=EXACT)
    transform, beta = BestOfNTilt(4).tilt
    assert (transform, beta) == (Log(), pytest.approx(1 / 3))
    scored = Scored(np.zeros(3), quantiles=u)
    tilt = CalibratedTilt(Log(), beta).log_weight(scored)
    np.testing.assert_allclose(BestOfNTilt(4).log_weight(scored), tilt, rtol=1e-12)


@pytest.mark.parametrize("first", [0.3, 2.0])
def test_tilts_compose(first):
    """QA-5, F3: 1/β = 1/β₁ + 1/β₂. ≤ 1e-12."""
    masses, rewards, _, _ = atoms(levels=60)
    rewards = rewards / 10
    policy = TabularPolicy(("x",), (tuple(map(str, range(60))),), masses[None])
    twice = policy.tilt(rewards[None], first).tilt(rewards[None], 0.9)
    once = policy.tilt(rewards[None], compose_betas(first, 0.9))
    assert np.abs(twice.masses - once.masses).sum() <= EXACT
    alone = policy.tilt(rewards[None], 0.9)
    assert np.abs(twice.masses - alone.masses).sum() >= 1e-2


@pytest.mark.parametrize("n", [1.5, 2, 4, 64, 1024])
@pytest.mark.parametrize("k", [1, 16, 256])
def test_finite_k_weights_have_mean_one(n, k):
    """A fresh response of the reference is equally likely at each of the k + 1 ranks."""
    below = np.arange(k + 1)
    ranks = Ranks(below, np.zeros(k + 1, dtype=int), k)
    weights = BestOfNTilt(n).log_weight(Scored(np.zeros(k + 1), ranks=ranks))
    assert np.exp(weights).mean() == pytest.approx(1, rel=1e-9)


def test_finite_k_weights_are_posterior_means():
    """E[N·V^(N−1)], V ~ Beta(r + 1, k − r + 1), by quadrature; a tie is the mean over its ranks."""
    from scipy import integrate, stats

    n, k = 5, 7
    alone = [
        integrate.quad(lambda v, r=r: n * v ** (n - 1) * stats.beta.pdf(v, r + 1, k - r + 1), 0, 1)
        for r in range(k + 1)
    ]
    means = np.array([value for value, _ in alone])
    below, ties = np.array([0, 2, 0, 3, 6]), np.array([0, 0, 7, 2, 1])
    scored = Scored(np.zeros(5), ranks=Ranks(below, ties, k))
    expected = [means[b : b + t + 1].mean() for b, t in zip(below, ties, strict=True)]
    np.testing.assert_allclose(np.exp(BestOfNTilt(n).log_weight(scored)), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_finite_k_weights_tend_to_the_exact_ratio(n):
    """Atoms included; at K = 10⁶ a log-weight is off by some N²/K, at most 1.1e-4 at N = 8."""
    _, rewards, below, upto = atoms(levels=5)
    k = 1_000_000
    low, high = np.rint(below * k).astype(int), np.rint(upto * k).astype(int)
    found = BestOfNTilt(n).log_weight(Scored(rewards, ranks=Ranks(low, high - low, k)))
    np.testing.assert_allclose(found, best_of_n_log_ratio(below, upto, n), atol=2e-4)


def test_ranks_give_the_posterior_mean_of_a_transform():
    """Finite where Φ(0) is not; unknown ranks have no weight."""
    ranks = Ranks(np.array([0, 3, -1]), np.array([0, 1, -1]), 4)
    scored = Scored(np.array([0.0, 1.0, np.nan]), np.array([0.0, 0.875, np.nan]), ranks)
    found = CalibratedTilt(Log(), 0.5).log_weight(scored)
    expected = Log().posterior_mean(ranks.below[:2], ranks.ties[:2], 4) / 0.5
    np.testing.assert_allclose(found[:2], expected)
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2])
    assert np.isnan(BestOfNTilt(4).log_weight(scored)[2])


class MidRank(Calibration):
    """Exact quantiles of a world."""

    def __init__(self, world):
        pairs = zip(world.rewards, world.rewards, strict=True)
        masses, rewards = world.masses, world.rewards
        self.u = {r: masses[rewards < r].sum() + masses[rewards == r].sum() / 2 for r, _ in pairs}

    def __call__(self, prompt_ids, rewards):
        return np.vectorize(self.u.__getitem__)(rewards)


def test_chains_imitate_best_of_n(lm_world):
    """F4 through the public call: 3,000 chains; exact quantiles, and ranks among K = 64.

    TV to the exact law of best-of-2 0.031, to that of the posterior-mean weights at N = 4 0.028; as
    many independent draws are 0.035 and 0.033 away in the mean. Negative control: the policy itself
    is 0.24 and 0.46 away.
    """
    world = lm_world(cap=3)
    rng = np.random.default_rng(0)
    below = np.array([world.masses[world.rewards < r].sum() for r in world.rewards])
    exact = tilt_atoms(
        world.masses[None], best_of_n_log_ratio(below, below + world.masses, 2)[None], 1.0
    )[0]
    drawn = rng.choice(world.rewards, (1, 64), p=world.masses)
    ranked = EmpiricalCalibration((world.prompt.id,), drawn)
    ranks = Ranks(*(a[0] for a in ranked.ranks([world.prompt.id], world.rewards[None])), 64)
    finite = BestOfNTilt(4).log_weight(Scored(world.rewards, ranks=ranks))
    finite = tilt_atoms(world.masses[None], finite[None], 1.0)[0]
    off = []
    for n, calibration, law in ((2, MidRank(world), exact), (4, ranked, finite)):
        procedure = mcmc(n=n, steps=25, chains=3000)
        assert procedure.needs_calibration
        [one] = decode(
            world.policy, [world.prompt], world.reward, procedure, calibration=calibration, rng=rng
        )
        assert one.quantiles is not None
        found = world.empirical(one.candidates[25::26])
        off += [np.abs(found - law).sum() / 2, np.abs(world.masses - law).sum() / 2]
        iid = [np.abs(rng.multinomial(3000, law) / 3000 - law).sum() / 2 for _ in range(20)]
        off += [np.mean(iid)]
        assert off[-3] <= np.mean(iid) + 0.02
        assert off[-2] >= 0.1


def test_calibrated_targets_need_a_calibration(lm_world):
    world = lm_world(cap=2)
    procedures = (mcmc(n=4), mcmc(0.5, transform="log"), MCMC(CalibratedTilt(Identity(), 1.0)))
    for procedure in procedures:
        with pytest.raises(ValueError, match="looks at quantiles"):
            decode(
                world.policy,
                [world.prompt],
                world.reward,
                procedure,
                rng=np.random.default_rng(0),
            )


def warned(policy, world, procedure, calibration=None):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(
            policy,
            [world.prompt],
            world.reward,
            procedure,
            calibration=calibration,
            rng=np.random.default_rng(0),
        )
    return [str(one.message) for one in seen if one.category is UserWarning]


def test_tilting_twice_by_the_same_reward_is_warned_of(lm_world):
    world = lm_world(cap=3)
    aligned = world.policy.tilt(world.rewards[None], 0.5, Alignment("lookup", 0.5))
    [message] = warned(aligned, world, MCMC(RewardTilt(0.25), rounds=2))
    assert "β = 0.5" in message
    assert "β = 0.25" in message
    assert f"β = {compose_betas(0.5, 0.25):g}" in message
    assert warned(world.policy, world, MCMC(RewardTilt(0.25), rounds=2)) == []
    other = world.policy.tilt(world.rewards[None], 0.5, Alignment("another", 0.5))
    assert warned(other, world, MCMC(RewardTilt(0.25), rounds=2)) == []
    calibrated = MCMC(CalibratedTilt(Log(), 0.25), rounds=2)
    [message] = warned(aligned, world, calibrated, MidRank(world))
    assert "under another transform" in message


def test_a_tilted_table_carries_its_alignment():
    policy = TabularPolicy(("x",), (("a", "b"),), np.array([[0.5, 0.5]]))
    rewards = np.array([[0.0, 1.0]])
    assert policy.aligned is None
    assert policy.tilt(rewards, 0.5).aligned is None
    assert policy.tilt(rewards, 0.5, Alignment("r", 0.5)).aligned == Alignment("r", 0.5)
    with pytest.raises(ValueError, match=r"β = 0\.5 came with an alignment at β = 0\.4"):
        policy.tilt(rewards, 0.5, Alignment("r", 0.4))


@pytest.mark.parametrize("beta", [0, -1.0, float("nan"), float("inf")])
def test_betas_that_are_none_are_refused(beta):
    for make in (RewardTilt, lambda b: CalibratedTilt(Log(), b), lambda b: compose_betas(1.0, b)):
        with pytest.raises(ValueError, match="beta is"):
            make(beta)
