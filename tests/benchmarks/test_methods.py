"""Each method, trained on a table, ends at the optimum that is known of it, and at no other."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from benchmarks.arena.measuring import divergences
from benchmarks.arena.runs import Run
from benchmarks.arena.store import Store
from benchmarks.arena.training import train
from benchmarks.arena.world import World
from benchmarks.methods import METHODS, Method
from benchmarks.methods.best_of_draws import best_and_worst, best_of
from benchmarks.methods.bonbon import BoNBoN
from benchmarks.methods.dpo import DPO
from benchmarks.methods.ipo import IPO
from benchmarks.methods.log_sigmoid import LogSigmoid
from benchmarks.methods.max_at_n import MaxAtN
from benchmarks.methods.normalised import Normalised
from benchmarks.methods.qrpo import QRPO
from benchmarks.methods.qrpo_published import PublishedQRPO
from benchmarks.methods.raft import RAFT
from benchmarks.methods.raw import Raw
from benchmarks.methods.vbon import VBoN
from benchmarks.methods.weighted_sft import WeightedSFT
from benchmarks.worlds.made import made
from scipy import optimize, special

from infalign import BestOfN, WorstOfN
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.win_rate import atomic_win_rate, decoded_masses
from infalign.training.rewards import quantile_intervals

REACHED = 5e-3
"""Largest total variation of a trained table to its optimum. 600 steps of AdamW leave up to 0.002
at the prompt that moves most: a response that has almost no mass has almost no gradient. Optima of
different methods are APART or more."""
APART = 0.02


@pytest.fixture(scope="module")
def world() -> World:
    return made(prompts=4, responses=10, seed=3)


def trained(world: World, method: Method) -> np.ndarray:
    return train(world, method, seed=0)[0]


def distance(law: np.ndarray, other: np.ndarray) -> float:
    """Largest total variation over prompts."""
    return float(np.abs(law - other).sum(1).max() / 2)


def tilt(world: World, training_rewards: np.ndarray, kl: float) -> np.ndarray:
    beta = beta_for_atoms_kl(world.law, training_rewards, kl)
    return tilt_atoms(world.law, training_rewards, beta)


def sd(world: World) -> np.ndarray:
    rewards = world.judges["training"]
    mean = (world.law * rewards).sum(1, keepdims=True)
    return np.sqrt((world.law * (rewards - mean) ** 2).sum(1, keepdims=True))


def quantiles(world: World) -> np.ndarray:
    """u by its definition, ties half."""
    rewards = world.judges["training"]
    lead = np.sign(rewards[:, :, None] - rewards[:, None, :])
    return ((1 + lead) / 2 * world.law[:, None, :]).sum(-1)


def test_raw_weighted_sft_end_at_the_tilt_by_the_reward_and_normalised_does_not(world):
    rewards = world.judges["training"]
    wanted = tilt(world, rewards, 0.8)
    for method in (Raw(0.8), WeightedSFT(0.8)):
        law = trained(world, method)
        assert distance(law, wanted) < REACHED
        assert divergences(law, world.law).mean() == pytest.approx(0.8, abs=5e-3)
        assert distance(law, tilt(world, rewards / sd(world), 0.8)) > APART


def test_normalised_ends_at_the_tilt_by_standard_deviations_and_not_at_the_raw_one(world):
    rewards, law = world.judges["training"], trained(world, Normalised(0.8))
    assert distance(law, tilt(world, rewards / sd(world), 0.8)) < REACHED
    assert distance(law, tilt(world, rewards, 0.8)) > APART


def test_a_prompt_with_one_reward_for_all_is_left_alone_by_normalised(world):
    rewards = world.judges["training"].copy()
    rewards[0] = 0.1
    phi = Normalised(0.8).training_rewards(Store(world.law, rewards))
    assert not phi[0].any()
    assert phi[1].any()


def test_log_sigmoid_ends_at_a_power_of_the_chance_to_beat_its_reference_reward(world):
    rewards, method = world.judges["training"], LogSigmoid(0.8)
    order = np.argsort(rewards, axis=1)
    at = [
        row[o][np.searchsorted(np.cumsum(law[o]), 0.85)]
        for row, o, law in zip(rewards, order, world.law, strict=True)
    ]
    chance = 1 / (1 + np.exp(-(rewards - np.array(at)[:, None])))
    law = trained(world, method)
    assert distance(law, tilt(world, np.log(chance), 0.8)) < REACHED
    uncentred = np.log(1 / (1 + np.exp(-rewards)))
    assert distance(law, tilt(world, uncentred, 0.8)) > APART


def test_ipo_on_ranked_pairs_is_the_calibrated_identity_tilt(world):
    law = trained(world, IPO(0.8))
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
    rewards, law = world.judges["training"], trained(world, DPO(2.0, "bradley-terry"))
    assert distance(law, tilt_atoms(world.law, rewards, 2.0)) < REACHED
    assert distance(law, tilt_atoms(world.law, rewards, 2.5)) > APART


def test_dpo_on_ranked_pairs_has_no_optimum_and_goes_on(world):
    shorter, longer = (
        dataclasses.replace(world, schedule=dataclasses.replace(world.schedule, steps=steps))
        for steps in (150, 600)
    )
    reached = [divergences(trained(one, DPO(2.0)), world.law).mean() for one in (shorter, longer)]
    assert reached[1] > reached[0] + 0.1
    still = [
        divergences(trained(one, DPO(2.0, "bradley-terry")), world.law).mean()
        for one in (shorter, longer)
    ]
    assert still[1] == pytest.approx(still[0], abs=2e-3)


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
        law = trained(world, method)
        assert distance(law, wanted) < REACHED
        assert (
            distance(law, decoded_masses(world.law, world.judges["training"], BestOfN(6))) > APART
        )
    assert distance(trained(world, BoNBoN(8)), wanted) > 0.2


def test_bonbon_ends_where_its_quadratic_form_is_least(world):
    method, store = BoNBoN(4, alpha=0.0), world.store(0)
    pairs = best_and_worst(store, 4)
    law = trained(world, method)
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


def test_vbon_ends_at_a_power_of_the_plain_cdf(world):
    rewards = world.judges["training"]
    upto = ((rewards[:, None, :] <= rewards[:, :, None]) * world.law[:, None, :]).sum(-1)
    wanted = world.law * upto**3.5
    law = trained(world, VBoN(4.5))
    assert distance(law, wanted / wanted.sum(1, keepdims=True)) < REACHED
    mid = world.law * quantiles(world) ** 3.5
    assert distance(law, mid / mid.sum(1, keepdims=True)) > APART


# Worst-of-4 asks for log-ratios of −26, and a square error does not get there in 600 steps.
@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(2)])
def test_qrpo_ends_at_the_optimal_tilt_of_the_atoms_and_as_published_elsewhere(world, procedure):
    transform = optimal_transform(procedure, kl=0.5)
    low, high = quantile_intervals(world.law, world.judges["training"])
    wanted = tilt(world, transform.interval_mean(low, high), 0.5)
    assert distance(trained(world, QRPO(transform, 0.5)), wanted) < REACHED
    published = trained(world, PublishedQRPO(transform, 0.5))
    assert distance(published, wanted) > APART
    target = transform(high.clip(0, 1)) / transform.beta - transform.log_partition(transform.beta)
    for p, t in enumerate(target):
        lowest = -np.exp(-t.max() - 1) * 0.999  # below it Lambert's W has no real value
        off = optimize.brentq(lambda x, t=t, p=p: _mass(world.law[p], t, x), lowest, 50.0)
        tilted = world.law[p] * np.exp(t - _lambert(t, off))
        assert np.abs(published[p] - tilted).sum() / 2 < REACHED


def _lambert(t: np.ndarray, off: float) -> np.ndarray:
    return special.lambertw(off * np.exp(t)).real


def _mass(law: np.ndarray, t: np.ndarray, off: float) -> float:
    return float((law * np.exp(t - _lambert(t, off))).sum() - 1)


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4)])
@pytest.mark.parametrize("worth", ["win rate", "reward"])
def test_max_at_n_ends_where_the_tilt_by_its_own_gradient_is_itself(world, procedure, worth):
    method, store = MaxAtN(procedure, 0.8, worth), world.store(0)
    law, worthy = trained(world, method), method.worth_of(store)
    beta = worthy.beta_for_kl(store.masses, 0.8)
    slope = worthy(law)[1]
    assert distance(law, tilt_atoms(world.law, slope, beta)) < 3 * REACHED  # a step of the fixed
    # point's map magnifies what is left by up to N²-fold curvature over β
    assert distance(law, tilt_atoms(world.law, slope, 1.3 * beta)) > APART
    if isinstance(procedure, BestOfN):  # of several stationary points training may meet another
        assert divergences(law, world.law).mean() == pytest.approx(0.8, abs=1e-2)


def test_the_worth_that_max_at_n_ascends_is_the_decoded_win_rate_and_its_gradient_is_true(world):
    store, rng = world.store(0), np.random.default_rng(0)
    store = Store(store.masses, store.rewards.round(0))  # with ties
    for procedure in (BestOfN(4), WorstOfN(3)):
        worth = MaxAtN(procedure, 0.8).worth_of(store)
        law = rng.dirichlet(np.ones(10), 4)
        value, slope = worth(law)
        exact = atomic_win_rate(law, store.masses, store.rewards, procedure)
        np.testing.assert_allclose(value, exact, atol=1e-12)
        to = rng.dirichlet(np.ones(10), 4) - law
        step = 1e-6 * to
        numeric = (worth(law + step)[0] - worth(law - step)[0]) / 2e-6
        np.testing.assert_allclose((slope * to).sum(1), numeric, atol=1e-7)


def test_max_at_n_wins_most_at_its_kl(world):
    procedure = BestOfN(4)
    ours = trained(world, MaxAtN(procedure, 0.8))
    rewards = world.judges["training"]
    won = atomic_win_rate(ours, world.law, rewards, procedure).mean()
    transform = optimal_transform(procedure, kl=0.8)
    others = [
        tilt(world, phi, 0.8)
        for phi in (world.store(0).training_rewards(transform), quantiles(world), rewards)
    ]
    beaten = [atomic_win_rate(law, world.law, rewards, procedure).mean() for law in others]
    assert won > max(beaten)
    assert won - beaten[0] < 0.01  # the continuous optimum on atoms is nearly theirs
    assert won - beaten[1] > 0.02


def value(method: Method, store: Store, log_ratio: np.ndarray) -> np.ndarray:
    """Loss at some log-ratios."""
    tables = {name: torch.as_tensor(table) for name, table in method.tables(store).items()}
    reference = torch.as_tensor(store.masses)
    return method.loss(torch.as_tensor(log_ratio), reference, tables).numpy()


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_trains_on_rollouts(name, world):
    short = dataclasses.replace(world.schedule, steps=20)
    drawn = dataclasses.replace(world, k=40, schedule=short)
    entry = METHODS[name]
    law = trained(drawn, entry.make(BestOfN(4), entry.strengths[0]))
    assert np.isfinite(law).all()
    won = atomic_win_rate(law, world.law, world.judges["training"], BestOfN(4)).mean()
    assert won > 0.6


def test_every_method_makes_runs_of_distinct_files(world):
    for name, entry in METHODS.items():
        paths = {
            Run(name, entry.make(BestOfN(4), strength)).path(world) for strength in entry.strengths
        }
        assert len(paths) == len(entry.strengths)
