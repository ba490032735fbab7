"""Laws of every tilted policy, and the tilt of finitely many atoms."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from infalign.quantile import transforms
from infalign.quantile.panels import TiltedLaw
from infalign.quantile.tilting import (
    TiltedPolicy,
    atoms_kl,
    beta_for_atoms_kl,
    beta_for_kl,
    tilt_atoms,
)
from infalign.quantile.transforms import Exponential, Log
from members import POLICIES, TRANSFORMS, named

every_policy = pytest.mark.parametrize("policy", POLICIES, ids=named)
every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=named)


@every_policy
def test_cdf_is_the_integral_of_the_density(policy):
    assert np.allclose(policy.cdf([0.0, 1.0]), [0.0, 1.0], atol=1e-12)
    for u in (0.1, 0.5, 0.9, 0.999):
        mass, _ = integrate.quad(lambda v: float(policy.density(v)), 0, u, limit=200, epsabs=1e-13)
        assert np.isclose(policy.cdf(u), mass, atol=1e-10)


@every_policy
def test_kl_is_the_integral_of_f_log_f(policy):
    def f_log_f(u):
        f = float(policy.density(u))
        return f * np.log(f) if f > 0 else 0.0

    points = [0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    expected, _ = integrate.quad(f_log_f, 0, 1, points=points, limit=300, epsabs=1e-12)
    assert np.isclose(policy.kl, expected, atol=1e-8)


@every_transform
def test_large_beta_is_the_reference(transform):
    policy, u = TiltedPolicy(transform, 1e4), np.linspace(0.05, 1, 20)
    assert np.allclose(policy.cdf(u), u, atol=1e-3)
    assert policy.kl < 1e-6
    nearer = TiltedPolicy(transform, getattr(transform, "beta", 0.3))
    assert not np.allclose(nearer.cdf(u), u, atol=1e-3)


@every_transform
def test_kl_decreases_in_beta_and_beta_for_kl_inverts_it(transform):
    betas = getattr(transform, "beta", 0.3) * np.array([0.7, 1.0, 1.5, 4.0, 50.0])
    kls = [TiltedPolicy(transform, float(b)).kl for b in betas]
    assert (np.diff(kls) < 0).all()
    for beta, kl in zip(betas, kls, strict=True):
        assert np.isclose(beta_for_kl(transform, kl), beta, rtol=1e-8)


@pytest.mark.parametrize("kl", [1e-8, 1e-4, 0.05, 1.0, 5.0, 12.0])
@pytest.mark.parametrize("transform", [Log(), transforms.Identity(), Exponential(10.0)], ids=named)
def test_any_kl_is_reached(transform, kl):
    policy = TiltedPolicy(transform, beta_for_kl(transform, kl))
    assert np.isclose(policy.kl, kl, rtol=1e-9)


@pytest.mark.parametrize("n", range(2, 65))
def test_log_at_the_right_beta_is_best_of_n(n):
    beta, u = 1 / (n - 1), np.linspace(0, 1, 301)
    policy = TiltedPolicy(Log(), beta)
    numeric = TiltedLaw.of(lambda u: Log()(u) / beta)
    assert np.allclose(policy.cdf(u), u**n, atol=1e-12)
    assert np.allclose(numeric.cdf(u), u**n, atol=1e-12)
    for kl in (policy.kl, numeric.kl):
        assert abs(kl - (np.log(n) - (n - 1) / n)) < 1e-8
    assert abs(policy.log_partition - numeric.log_mass) < 1e-12


@pytest.mark.parametrize("beta", [0.005, 0.1, 1.0, 30.0])
def test_identity_has_its_closed_form(beta):
    policy, u = TiltedPolicy(transforms.Identity(), beta), np.linspace(0, 1, 101)
    numeric = TiltedLaw.of(lambda u: u / beta)
    assert np.allclose(policy.cdf(u), numeric.cdf(u), atol=1e-13)
    assert np.isclose(policy.log_partition, numeric.log_mass, rtol=1e-13)
    log_z = 1 / beta + np.log(beta * (1 - np.exp(-1 / beta)))
    assert np.isclose(policy.log_partition, log_z, rtol=1e-12)


@every_policy
def test_samples_follow_the_law(policy):
    """Kolmogorov–Smirnov at 1e-4 per policy: under 1e-3 for all at a fresh seed; seed fixed."""
    u = policy.sample(10_000, np.random.default_rng(3))
    assert stats.kstest(u, policy.cdf).pvalue > 1e-4
    other = TiltedPolicy(policy.transform, 1.5 * policy.beta)
    assert stats.kstest(u, other.cdf).pvalue < 1e-4


def test_bad_beta_and_kl_are_refused():
    for beta in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="positive"):
            TiltedPolicy(Log(), beta)
    for kl in (0.0, -0.5, 100.0, np.nan):
        with pytest.raises(ValueError, match="KL of"):
            beta_for_kl(Log(), kl)


def atoms(seed=0, prompts=5, count=8):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(count), size=prompts), rng.normal(size=(prompts, count))


def test_tilted_atoms_maximise_reward_minus_beta_kl():
    (masses,), (rewards,) = atoms(prompts=1, count=4)

    def loss(z):
        p = np.exp(z - z.max())
        p = p / p.sum()
        return -(p @ rewards) + 0.4 * atoms_kl(masses[None], p[None])[0]

    tilted = tilt_atoms(masses[None], rewards[None], 0.4)[0]
    best = optimize.minimize(loss, np.zeros(4), tol=1e-14)
    p = np.exp(best.x - best.x.max())
    assert np.allclose(p / p.sum(), tilted, atol=1e-5)
    assert loss(np.log(tilt_atoms(masses[None], rewards[None], 0.6)[0])) > loss(np.log(tilted))


def test_beta_for_atoms_gives_the_mean_kl():
    masses, rewards = atoms()
    for kl in (1e-4, 0.1, 1.0):
        beta = beta_for_atoms_kl(masses, rewards, kl)
        assert np.isclose(atoms_kl(masses, tilt_atoms(masses, rewards, beta)).mean(), kl, rtol=1e-8)
        scaled = beta_for_atoms_kl(masses, 1e-6 * rewards - 4, kl)
        assert np.isclose(scaled, 1e-6 * beta, rtol=1e-6)


def test_atoms_out_of_reach_or_not_a_law_are_refused():
    masses, rewards = atoms()
    with pytest.raises(ValueError, match="below"):
        beta_for_atoms_kl(masses, rewards, 50.0)
    with pytest.raises(ValueError, match="below 0"):
        beta_for_atoms_kl(masses, np.zeros_like(rewards), 0.1)
    with pytest.raises(ValueError, match="sum to"):
        tilt_atoms(2 * masses, rewards, 1.0)
    with pytest.raises(ValueError, match="beta is 0"):
        tilt_atoms(masses, rewards, 0.0)


def test_atoms_without_mass_stay_without():
    masses = np.array([[0.5, 0.0, 0.5]])
    tilted = tilt_atoms(masses, np.array([[0.0, 1e6, 1.0]]), 0.5)
    assert tilted[0, 1] == 0
    assert np.isclose(tilted.sum(), 1)
    assert np.isfinite(beta_for_atoms_kl(masses, np.array([[0.0, 1e6, 1.0]]), 0.2))
    assert atoms_kl(masses, np.array([[0.0, 1.0, 0.0]]))[0] == np.inf
