"""Laws of the finite world: what K rollouts leave of a win rate."""

import numpy as np
import pytest
from scipy import stats

from infalign.quantile.agreement import copula_correlation
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.finite import (
    finite_estimate,
    finite_frontier,
    finite_win_rate,
    largest_kl,
    rollouts_enough,
)
from infalign.quantile.finite.contest import Contest
from infalign.quantile.finite.portable import hashed, portable_gaps, portable_uniforms
from infalign.quantile.finite.worlds import Worlds
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN, RewindAndRepeat, SoftBestOfN, WorstOfN, median_of
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.tilting import TiltedPolicy, beta_for_atoms_kl, beta_for_kl, tilt_atoms
from infalign.quantile.transforms import Exponential, Identity
from infalign.quantile.win_rate import atomic_win_rate, frontier, win_rate
from members import named

EXP = Exponential(10.0)
GRADES = Ties.of_masses([0.2, 0.3, 0.1, 0.4])


def simulated(transform, procedure, k, beta, rewards_of, prompts=300, responses=3000, plain=False):
    """An actual calibration: K rollouts with rewards, posterior means, a softmax, exact decoding.

    `responses` equally likely responses stand for all; mean win rate and KL, and their errors.
    """
    rng = np.random.default_rng(5)
    ids = tuple(map(str, range(prompts)))
    rewards = np.tile(rewards_of((np.arange(responses) + 0.5) / responses), (prompts, 1))
    calibration = EmpiricalCalibration(ids, rewards_of(rng.random((prompts, k))))
    below, ties = calibration.ranks(ids, rewards)
    phi = transform.posterior_mean(below, ties, k)
    if plain:
        phi = transform((below + ties / 2) / k)
    masses = np.full(rewards.shape, 1 / responses)
    tilted = tilt_atoms(masses, phi, beta)
    wins = atomic_win_rate(tilted, masses, rewards, procedure)
    kls = np.sum(tilted * np.log(np.maximum(tilted, 1e-300) * responses), axis=1)
    errors = [(wins - beta * kls).std() / np.sqrt(prompts), kls.std() / np.sqrt(prompts)]
    return wins.mean(), kls.mean(), *errors


CASES = [
    (EXP, BestOfN(4), 16, NO_TIES, lambda u: u),
    (Identity(), median_of(3), 8, NO_TIES, lambda u: u),
    (EXP, BestOfN(4), 16, GRADES, lambda u: np.digitize(u, GRADES.breaks).astype(float)),
    (
        Exponential(-10.0),
        WorstOfN(3),
        12,
        Ties(((0.3, 0.7),)),
        lambda u: np.where((u > 0.3) & (u < 0.7), 0.5, u),
    ),
    (EXP, BestOfN(4), 10, Ties.pass_fail(0.3), lambda u: (u > 0.7).astype(float)),
]


@pytest.mark.parametrize(("transform", "procedure", "k", "ties", "rewards_of"), CASES)
def test_it_is_what_an_actual_calibration_does(transform, procedure, k, ties, rewards_of):
    """Two numbers within 5 standard errors, 5 cases: false alarm under 1e-5; seeds fixed."""
    wins, kl, error, kl_error = simulated(transform, procedure, k, 0.2, rewards_of)
    predicted = finite_win_rate(transform, procedure, k, kl, ties=ties)
    assert abs(predicted - wins) < 5 * np.hypot(error, 0.0015)
    assert abs(Worlds.of(k, ties, 4000).kl(transform, 0.2) - kl) < 5 * kl_error


def test_a_transform_of_the_plain_quantile_is_another_policy():
    """The negative control of the test above: Φ(r/K) in place of the posterior mean is noticed."""
    _, kl, _, kl_error = simulated(EXP, BestOfN(4), 6, 0.2, lambda u: u, plain=True)
    assert abs(Worlds.of(6, draws=4000).kl(EXP, 0.2) - kl) > 10 * kl_error


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4), median_of(3)], ids=named)
def test_more_rollouts_tend_to_perfect_calibration(procedure):
    best = optimal_transform(procedure, kl=0.5)
    losses = [best.win_rate - finite_win_rate(best, procedure, k, 0.5) for k in (8, 64, 512, 2048)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.01
    assert 0 < losses[-1] < 1e-3


def test_ties_tend_to_the_atoms_of_perfect_calibration():
    masses, kl = np.array([[0.4, 0.3, 0.2, 0.1]]), 0.5
    ties = Ties.of_masses(masses[0])
    phi = EXP.interval_mean(ties.starts, ties.ends)[None]
    tilted = tilt_atoms(masses, phi, beta_for_atoms_kl(masses, phi, kl))
    perfect = atomic_win_rate(tilted, masses, np.arange(4.0)[None], BestOfN(4))[0]
    assert abs(finite_win_rate(EXP, BestOfN(4), 2048, kl, ties=ties, draws=100) - perfect) < 1e-3
    assert abs(finite_win_rate(EXP, BestOfN(4), 8, kl, ties=ties) - perfect) > 3e-3
    assert abs(finite_win_rate(EXP, BestOfN(4), 2048, kl) - perfect) > 3e-3


@pytest.mark.parametrize("k", [2, 9])
def test_pass_fail_is_the_sum_over_all_calibrations(k):
    """Against all 2^k outcomes of k rollouts, one by one."""
    p, beta, masses = 0.3, 0.25, np.array([[0.7, 0.3]])
    worlds = Worlds.of(k, Ties.pass_fail(p))
    wins = kl = 0.0
    for outcome in range(2**k):
        passed = bin(outcome).count("1")
        below, ties = np.array([[0, k - passed]]), np.array([[k - passed, passed]])
        tilted = tilt_atoms(masses, EXP.posterior_mean(below, ties, k), beta)
        chance = p**passed * (1 - p) ** (k - passed)
        wins += chance * atomic_win_rate(tilted, masses, np.array([[0.0, 1.0]]), BestOfN(4))[0]
        kl += chance * float(np.sum(tilted * np.log(tilted / masses)))
    assert np.isclose(worlds.kl(EXP, beta), kl, rtol=1e-12)
    assert np.isclose(finite_win_rate(EXP, BestOfN(4), k, kl, ties=Ties.pass_fail(p)), wins)


def test_pass_fail_by_draws_is_pass_fail_by_the_sum():
    """Within 5 standard errors; the two tied intervals, cut in three, are drawn and not summed."""
    exact = finite_win_rate(EXP, BestOfN(4), 12, 0.2, ties=Ties.pass_fail(0.3))
    hair = Ties(((0.0, 0.7), (0.7, 1 - 1e-9)))
    drawn = finite_win_rate(EXP, BestOfN(4), 12, 0.2, ties=hair, draws=4000)
    assert abs(drawn - exact) < 2e-3


def test_the_frontier_is_each_point_and_different_procedures_may_face_each_other():
    kls = [0.2, 0.8]
    ours = finite_frontier("optimal", BestOfN(4), 32, kls, reference_procedure=BestOfN(2))
    for kl, value in zip(kls, ours, strict=True):
        phi = optimal_transform(BestOfN(4), kl=kl, reference_procedure=BestOfN(2))
        single = finite_win_rate(phi, BestOfN(4), 32, kl, reference_procedure=BestOfN(2))
        assert value == single
    limit = frontier(BestOfN(4), kls, reference_procedure=BestOfN(2))
    assert (ours < limit).all()
    assert (ours > limit - 0.05).all()


def played(procedure, other, k, kl, agreement, rng, answers=400):
    """Samples from each world's step function, selected by rank or quantile, judged by gold."""
    worlds = Worlds.of(k, draws=200, rng=rng)
    masses = worlds.gaps * worlds.densities(EXP, worlds.beta_for_kl(EXP, kl))
    size = (answers, procedure.candidates)
    r, wins = copula_correlation(agreement), []
    for edges, mass in zip(worlds.edges, masses, strict=True):
        piece = rng.choice(len(mass), size=size, p=mass)
        ours = edges[piece] + np.diff(edges)[piece] * rng.random(size)
        theirs = rng.random((answers, other.candidates))
        u = np.take_along_axis(ours, procedure.select(ours, rng)[:, None], 1)
        v = np.take_along_axis(theirs, other.select(theirs, rng)[:, None], 1)
        gold = (
            r * stats.norm.ppf(x) + np.sqrt(1 - r**2) * rng.normal(size=x.shape) for x in (u, v)
        )
        a, b = gold
        wins.append((a > b).mean())
    return np.mean(wins), np.std(wins) / np.sqrt(len(wins))


@pytest.mark.parametrize(
    ("procedure", "other", "agreement"),
    [
        (BestOfN(4), BestOfN(4), 0.6),
        (BestOfN(4), RewindAndRepeat(0.6, 4), 1.0),
        (RewindAndRepeat(0.6, 4), BestOfN(2), 1.0),
        (SoftBestOfN(4, 0.2), SoftBestOfN(4, 0.2), 0.8),
    ],
    ids=["imperfect judge", "rewinding reference", "rewinding policy", "soft, imperfect judge"],
)
def test_any_procedure_and_judge_is_what_sampling_finds(procedure, other, agreement):
    """Within 4.5 standard errors (about 0.004) of both, 4 cases: false alarm under 1e-4."""
    found, error = played(procedure, other, 12, 0.4, agreement, np.random.default_rng(8))
    options = {"agreement": agreement, "reference_procedure": other}
    predicted = finite_win_rate(EXP, procedure, 12, 0.4, **options)
    assert abs(predicted - found) < 4.5 * np.hypot(error, 0.0015)
    perfect = win_rate(
        TiltedPolicy(EXP, beta_for_kl(EXP, 0.4)), procedure, other, agreement=agreement
    )
    assert predicted < perfect
    blind = finite_win_rate(EXP, procedure, 12, 0.4, reference_procedure=other, agreement=0.2)
    assert abs(blind - found) > 4.5 * np.hypot(error, 0.0015)


def test_rank_procedures_by_mesh_and_by_gauss_agree():
    """The way of quantile procedures, taken by a rank procedure."""
    contest = Contest.of(BestOfN(4), None, 0.7, NO_TIES)
    worlds = Worlds.of(12, draws=20, breaks=contest.breaks)
    beta = worlds.beta_for_kl(EXP, 0.5)
    by_mesh = worlds.weights @ contest._by_mesh(worlds, EXP, beta)
    assert abs(by_mesh - contest.win_rate(worlds, EXP, 0.5)) < 1e-7


def test_rollouts_matter_less_to_a_judge_who_agrees_less():
    perfect = win_rate(TiltedPolicy(EXP, beta_for_kl(EXP, 0.5)), BestOfN(4), agreement=0.4)
    many = finite_win_rate(EXP, BestOfN(4), 1024, 0.5, draws=100, agreement=0.4)
    few = finite_win_rate(EXP, BestOfN(4), 8, 0.5, agreement=0.4)
    assert abs(perfect - many) < 1e-3
    assert perfect - few > 5e-3
    enough = rollouts_enough(EXP, BestOfN(4), 0.5, 0.01, agreement=0.4)
    assert enough < rollouts_enough(EXP, BestOfN(4), 0.5, 0.01)


def test_enough_rollouts_are_enough_and_fewer_are_not():
    for phi, procedure, loss in [(Identity(), BestOfN(4), 0.004), (EXP, BestOfN(4), 0.01)]:
        k = rollouts_enough(phi, procedure, 0.5, loss)
        perfect = win_rate(TiltedPolicy(phi, beta_for_kl(phi, 0.5)), procedure)
        at, below = (finite_win_rate(phi, procedure, j, 0.5, draws=4000) for j in (k, int(0.7 * k)))
        assert perfect - at < 1.15 * loss
        assert perfect - below > loss
    optimal = rollouts_enough("optimal", BestOfN(4), 0.5, 0.01)
    assert optimal < rollouts_enough("optimal", BestOfN(4), 0.5, 0.003)
    assert rollouts_enough("optimal", BestOfN(4), 3.0, 0.2) > np.exp(3.0) / 2  # KL within reach


@pytest.mark.parametrize(
    ("transform", "procedure", "k", "kl"),
    [
        (EXP, BestOfN(8), 32, 1.0),
        ("optimal", BestOfN(4), 64, 1.0),
        (Exponential(-20.0), WorstOfN(4), 32, 1.0),
    ],
)
def test_the_stated_error_holds_against_twenty_thousand_draws(transform, procedure, k, kl):
    """4 standard errors of other draws, 3 settings: false alarm 2e-4; and the error is small."""
    many = {"draws": 20_000, "rng": np.random.default_rng(5)}
    wins, error = finite_estimate(transform, procedure, k, kl)
    true, left = finite_estimate(transform, procedure, k, kl, **many)
    assert abs(wins - true) < 4 * np.hypot(error, left)
    assert 0 < left < error < 3e-4
    assert wins == finite_frontier(transform, procedure, k, [kl])[0]


def test_the_standard_error_is_the_spread_over_seeds():
    found = [
        finite_estimate(EXP, BestOfN(4), 16, 0.5, draws=400, rng=np.random.default_rng(seed))
        for seed in range(40)
    ]
    wins, errors = np.array(found).T
    assert 0.7 < errors.mean() / wins.std(ddof=1) < 1.4  # its 3 standard deviations are 0.34
    plain = [
        Contest.of(BestOfN(4), None, 1.0, NO_TIES).win_rate(
            Worlds.of(16, draws=400, rng=np.random.default_rng(seed)), EXP, 0.5
        )
        for seed in range(40)
    ]
    assert np.std(plain) > wins.std()  # without the balanced means


def test_no_error_is_left_where_all_calibrations_are_summed():
    assert finite_estimate(EXP, BestOfN(4), 16, 0.2, ties=Ties.pass_fail(0.3))[1] == 0


def test_a_single_draw_and_draws_all_alike_are_averaged_as_they_are():
    assert Worlds.of(4, draws=1).balanced().weights.tolist() == [1]


def test_gaps_have_the_law_of_sorted_uniforms():
    """Kolmogorov–Smirnov at 1e-4 on each of three order statistics; equal gaps are noticed."""
    k = 7
    quantiles = np.cumsum(portable_gaps(4000, k), axis=1)
    for rank in (1, 4, 7):
        law = stats.beta(rank, k - rank + 1)
        assert stats.kstest(quantiles[:, rank - 1], law.cdf).pvalue > 1e-4
        wrong = np.cumsum(portable_uniforms(4000, k + 1), axis=1)
        wrong /= wrong[:, -1:]  # uniform gaps in place of exponential ones
        assert stats.kstest(wrong[:, rank - 1], law.cdf).pvalue < 1e-4


def test_a_wrong_law_of_the_draws_is_noticed_in_the_win_rate():
    exact = finite_win_rate(EXP, BestOfN(4), 16, 0.5, draws=4000)
    random = finite_win_rate(EXP, BestOfN(4), 16, 0.5, draws=4000, rng=np.random.default_rng(3))
    assert abs(exact - random) < 2.5e-3  # 5 standard errors of the difference

    class EquallySpaced(np.random.Generator):
        def random(self, size):
            return np.tile((np.arange(size[1]) + 1) / (size[1] + 1), (size[0], 1))

    regular = finite_win_rate(EXP, BestOfN(4), 16, 0.5, rng=EquallySpaced(np.random.PCG64(0)))
    assert abs(regular - exact) > 5e-3


def test_portable_numbers_are_those_of_any_language():
    """Each step in Python's own integers, reduced modulo 2³² by hand."""

    def by_hand(x):
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    table = portable_uniforms(3, 4, seed=7)
    for row in range(3):
        for column in range(4):
            of_row = by_hand((row + by_hand(7)) % 2**32)
            assert table[row, column] == (by_hand(by_hand(column) ^ of_row) + 0.5) / 2**32
    assert (portable_uniforms(2, 3, seed=7) == table[:2, :3]).all()
    assert not np.isclose(portable_uniforms(3, 4, seed=8), table).any()
    assert len(np.unique(hashed(np.arange(10**5, dtype=np.uint32)))) == 10**5


def test_portable_uniforms_look_independent():
    """Largest of 2 × 79,800 correlations below 5.5/√400: false alarm under 1e-2; seed fixed."""
    table = portable_uniforms(400, 400)
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    for rows in (table, table.T):
        correlations = np.corrcoef(rows) - np.eye(400)
        assert np.abs(correlations).max() < 5.5 / np.sqrt(400)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="out of reach with k = 4"):
        finite_win_rate(EXP, BestOfN(4), 4, largest_kl(4) + 0.3)
    with pytest.raises(ValueError, match="out of reach"):
        finite_win_rate(EXP, BestOfN(4), 4, 0.0)
    with pytest.raises(ValueError, match="at least 2 rollouts"):
        finite_win_rate(EXP, BestOfN(4), 1, 0.1)
    with pytest.raises(ValueError, match="draws is 0"):
        finite_win_rate(EXP, BestOfN(4), 4, 0.1, draws=0)
    with pytest.raises(ValueError, match="'best'"):
        finite_frontier("best", BestOfN(4), 4, [0.1])  # pyright: ignore
    for loss in (0.0, -0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="A loss of"):
            rollouts_enough(EXP, BestOfN(4), 0.5, loss)


def test_a_loss_that_needs_too_many_rollouts_says_so(monkeypatch):
    from infalign.quantile.finite import calibrated as finite

    monkeypatch.setattr(finite, "MOST_ROLLOUTS", 256)
    with pytest.raises(ValueError, match="More than 256 rollouts"):
        rollouts_enough("optimal", BestOfN(4), 0.5, 1e-3)
