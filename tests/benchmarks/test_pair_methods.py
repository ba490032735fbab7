"""Methods that learn from pairs or the best of draws end at the optimum that is known of them."""

import itertools

import numpy as np
import pytest
from benchmarks.arena.measuring import divergences
from benchmarks.arena.store import Store
from benchmarks.arena.world import World
from benchmarks.methods.best_of_draws import best_and_worst, best_of
from benchmarks.methods.bonbon import BoNBoN
from benchmarks.methods.dpo import DPO
from benchmarks.methods.ipo import IPO
from benchmarks.methods.raft import RAFT
from benchmarks.worlds.made import made

from infalign import BestOfN
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.win_rate import decoded_masses
from minimising import APART, REACHED, distance, minimised, quantiles, stepped, tilt, value


@pytest.fixture(scope="module")
def world() -> World:
    return made(prompts=4, responses=10, seed=3)


def test_ipo_on_ranked_pairs_is_the_calibrated_identity_tilt(world):
    law = minimised(world, IPO(0.8))
    assert distance(law, tilt(world, quantiles(world), 0.8)) < REACHED
    assert distance(law, tilt(world, world.judges["training"], 0.8)) > APART
    assert distance(law, tilt(world, quantiles(world), 1.2)) > APART


def test_ipo_is_the_published_square_over_winner_and_loser_up_to_a_constant(world):
    store, method, rng = world.store(0), IPO(0.8), np.random.default_rng(0)
    tau = beta_for_atoms_kl(store.masses, store.quantiles(), 0.8)
    differences = []
    for _ in range(3):
        s = rng.normal(size=store.masses.shape)
        winner = store.rewards[:, :, None] > store.rewards[:, None, :]
        pairs = 2 * store.masses[:, :, None] * store.masses[:, None, :] * winner
        published = (pairs * (s[:, :, None] - s[:, None, :] - 1 / (2 * tau)) ** 2).sum((1, 2))
        differences.append(published - value(method, store, s))
    assert np.ptp(differences, axis=0).max() < 1e-12


def test_dpo_with_bradley_terry_labels_ends_at_the_tilt_by_the_reward(world):
    rewards, law = world.judges["training"], minimised(world, DPO(2.0, "bradley-terry"))
    assert distance(law, tilt_atoms(world.law, rewards, 2.0)) < REACHED
    assert distance(law, tilt_atoms(world.law, rewards, 2.5)) > APART


def test_dpo_on_ranked_pairs_has_no_optimum_and_goes_on(world):
    labelled = DPO(2.0, "bradley-terry")
    reached, still = (
        [divergences(stepped(world, method, steps), world.law).mean() for steps in (100, 300)]
        for method in (DPO(2.0), labelled)
    )
    assert reached[1] > reached[0] + 0.1
    assert still[1] == pytest.approx(still[0], abs=5e-3)


def test_best_of_draws_counts_what_enumeration_counts():
    rewards = np.array([[0.0, 1.0, 1.0, 2.0]])
    law, counts = np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[1, 2, 1, 2]])
    for store, pool in (
        (Store(law, rewards), [(c, law[0, c]) for c in range(4)]),
        (Store(counts / 6, rewards, 6), [(c, 1.0) for c in np.repeat(range(4), counts[0])]),
    ):
        draws = itertools.permutations if store.k else _product
        wanted = np.zeros((4, 4))
        for drawn in draws(pool, 3):
            responses, weight = [c for c, _ in drawn], np.prod([w for _, w in drawn])
            values = rewards[0, responses]
            best = [c for c in responses if rewards[0, c] == values.max()]
            worst = [c for c in responses if rewards[0, c] == values.min()]
            for one, other in itertools.product(best, worst):
                wanted[one, other] += weight / len(best) / len(worst)
        wanted /= wanted.sum()
        pairs = best_and_worst(store, 3)[0]
        assert pairs.sum() == pytest.approx(1)
        np.testing.assert_allclose(best_of(store, 3)[0], wanted.sum(1), atol=1e-12)
        np.testing.assert_allclose(pairs.sum(1), wanted.sum(1), atol=1e-12)
        apart = rewards[0][:, None] != rewards[0][None, :]
        np.testing.assert_allclose(pairs[apart], wanted[apart], atol=1e-12)


def _product(pool, n):
    return itertools.product(pool, repeat=n)


def test_more_draws_than_rollouts_are_refused(world):
    store = Store.drawn(world.law, world.judges["training"], 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="best of 9 was asked for, of 8 rollouts"):
        RAFT(9).tables(store)


def test_raft_and_bonbon_without_contrast_end_at_best_of_n_and_bonbon_with_it_does_not(world):
    wanted = decoded_masses(world.law, world.judges["training"], BestOfN(8))
    for method in (RAFT(8), BoNBoN(8, alpha=1.0)):
        law = minimised(world, method)
        assert distance(law, wanted) < REACHED
        assert (
            distance(law, decoded_masses(world.law, world.judges["training"], BestOfN(6))) > APART
        )
    assert distance(minimised(world, BoNBoN(8)), wanted) > 0.2


def test_bonbon_ends_where_its_quadratic_form_is_least(world):
    method, store = BoNBoN(4, alpha=0.0), world.store(0)
    pairs = best_and_worst(store, 4)
    law = minimised(world, method)
    for p, w in enumerate(pairs):
        best, worst = w.sum(1), w.sum(0)
        laplacian = np.diag(best + worst) - w - w.T
        s = np.linalg.lstsq(laplacian, method.margin * (best - worst), rcond=None)[0]
        wanted = world.law[p] * np.exp(s)
        assert np.abs(law[p] - wanted / wanted.sum()).sum() / 2 < REACHED
        without_twos = world.law[p] * np.exp(s / 2)
        assert np.abs(law[p] - without_twos / without_twos.sum()).sum() / 2 > APART
    # The margin is what the best-of-n law's own mean would be, with many responses.
    many = Store(np.full((1, 4000), 1 / 4000), np.arange(4000.0)[None])
    w = best_and_worst(many, 4)[0]
    s = np.log(best_of(many, 4)[0] * 4000)
    assert (w * (s[:, None] - s[None, :])).sum() == pytest.approx(method.margin, rel=2e-3)
