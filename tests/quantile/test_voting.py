"""Laws of voting: the exact law of a plurality, and the best policy for it."""

import itertools

import numpy as np
import pytest

from infalign.quantile.atoms.mirror import mirror_ascent, worth_against
from infalign.quantile.atoms.voting import MajorityVote
from infalign.quantile.tilting import atoms_kl, beta_for_atoms_kl, tilt_atoms


def by_enumeration(masses, n):
    """All Cⁿ draws; the winner's chance shared among the tied."""
    wins = np.zeros(len(masses))
    for draw in itertools.product(range(len(masses)), repeat=n):
        votes = np.bincount(draw, minlength=len(masses))
        top = votes == votes.max()
        wins[top] += np.prod(masses[list(draw)]) / top.sum()
    return wins


@pytest.mark.parametrize(
    ("count", "n"), [(1, 3), (2, 1), (2, 6), (2, 9), (3, 4), (3, 7), (4, 6), (5, 5), (7, 4)]
)
def test_the_law_is_the_enumeration(count, n):
    masses = np.random.default_rng(count).dirichlet(np.ones(count))
    assert np.allclose(
        MajorityVote(n).decoded_masses(masses), by_enumeration(masses, n), atol=1e-14
    )
    if count > 1 and n > 2:  # breaking ties in favour of the first would be another law
        wins = MajorityVote(n).decoded_masses(masses)
        assert not np.allclose(wins, masses, atol=1e-4)


@pytest.mark.parametrize(("count", "n"), [(12, 32), (40, 9), (3, 128)])
def test_the_law_of_many_votes_is_what_sampling_finds(count, n):
    """Within 4.5 standard errors for up to 40 answers, 3 cases: false alarm under 1e-3."""
    rng, m = np.random.default_rng(1), 20_000
    masses = rng.dirichlet(np.ones(count))
    wins = MajorityVote(n).decoded_masses(masses)
    draws = rng.choice(count, size=(m, n), p=masses)
    chosen = np.take_along_axis(draws, MajorityVote(n).select(draws, rng)[:, None], 1)[:, 0]
    found = np.bincount(chosen, minlength=count) / m
    error = np.sqrt(np.maximum(wins * (1 - wins), 1 / m) / m)
    assert abs(wins.sum() - 1) < 1e-12
    assert (np.abs(found - wins) < 4.5 * error).all()
    assert (np.abs(found - masses) > 4.5 * error).any()


def test_rows_are_policies_and_the_order_of_answers_does_not_matter():
    masses = np.random.default_rng(2).dirichlet(np.ones(5), size=(2, 3))
    together = MajorityVote(6).decoded_masses(masses)
    for index in np.ndindex(2, 3):
        assert np.allclose(together[index], MajorityVote(6).decoded_masses(masses[index]))
    assert np.allclose(MajorityVote(6).decoded_masses(masses[..., ::-1]), together[..., ::-1])


def test_answers_without_mass_never_win():
    wins = MajorityVote(5).decoded_masses(np.array([0.5, 0.0, 0.5]))
    assert np.allclose(wins, [0.5, 0.0, 0.5])


@pytest.mark.parametrize("kl", [0.05, 0.3])
def test_the_optimum_wins_more_than_any_policy_that_is_tried(kl):
    """Against 300 random policies at the same KL, and small moves from the optimum itself."""
    rng, count = np.random.default_rng(3), 6
    reference, rewards = rng.dirichlet(3 * np.ones(count)), rng.permutation(count).astype(float)
    vote = MajorityVote(5).decoded_masses
    best = mirror_ascent(reference, vote, rewards, kl=kl).best
    worth = worth_against(vote(reference), rewards)

    def at_kl(tilt):
        ranks = tilt[None] - tilt.max()
        beta = beta_for_atoms_kl(reference[None], ranks, kl)
        return tilt_atoms(reference[None], ranks, beta)[0]

    tilts = rng.normal(size=(300, count)) + rng.choice([0, 3]) * worth
    tilts = [t for t in tilts if -np.log(reference[np.argmax(t)]) > kl + 0.01]
    tried = np.array([at_kl(tilt) for tilt in tilts])
    own = np.log(best.masses / reference)
    near = np.array([at_kl(own + 1e-2 * rng.normal(size=count)) for _ in range(100)])
    assert np.isclose(best.kl, kl, rtol=1e-9)
    assert (vote(tried) @ worth).max() < best.win_rate
    assert (vote(near) @ worth).max() < best.win_rate
    assert best.residual < 1e-10


def test_training_on_calibrated_rewards_is_not_the_optimum_for_a_vote():
    rng = np.random.default_rng(4)
    reference, rewards, kl = rng.dirichlet(3 * np.ones(5)), np.arange(5.0), 0.2
    vote = MajorityVote(7).decoded_masses
    best = mirror_ascent(reference, vote, rewards, kl=kl).best
    quantiles = np.cumsum(reference) - reference / 2
    beta = beta_for_atoms_kl(reference[None], quantiles[None], kl)
    calibrated = tilt_atoms(reference[None], quantiles[None], beta)
    worth = worth_against(vote(reference), rewards)
    assert np.isclose(atoms_kl(reference[None], calibrated)[0], kl)
    assert best.win_rate > vote(calibrated[0]) @ worth + 0.005


def test_what_cannot_be_counted_is_refused():
    for n in (0, 129, 2.5):
        with pytest.raises(ValueError, match="votes"):
            MajorityVote(n)
    with pytest.raises(ValueError, match=r"sum to 0\.9"):
        MajorityVote(3).decoded_masses(np.array([0.5, 0.4]))
    with pytest.raises(ValueError, match="counts 3 votes"):
        MajorityVote(3).select(np.zeros((2, 4), dtype=int), np.random.default_rng(0))
