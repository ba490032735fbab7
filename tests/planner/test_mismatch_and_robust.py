"""Train-for × decode-with, and the transform whose worst case is best."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from infalign import (
    BestOfN,
    Exponential,
    Log,
    TiltedPolicy,
    WorstOfN,
    beta_for_kl,
    median_of,
    optimal_transform,
    win_rate,
)
from infalign.planner import Robust, mismatch, robust, saddle_point, write_heatmap
from infalign.quantile.transforms import Identity as IdentityTransform

BESTS = [BestOfN(1), BestOfN(4), BestOfN(16)]


@pytest.fixture(scope="module")
def found() -> Robust:
    return robust(BESTS, 1.0)


@pytest.fixture(scope="module")
def matrix(found):
    return mismatch(BESTS, 1.0, transforms=[Log(), found.transform])


class Grid:
    """The inner maximum on 400 midpoints by a damped fixed point: slow, and independent."""

    def __init__(self, procedures, kl, base, points=400):
        self.u = (np.arange(points) + 0.5) / points
        self.procedures, self.kl, self.base = procedures, kl, np.asarray(base)
        self.against = [p.rank_density(self.u) for p in procedures]

    def cdf(self, f):
        return np.clip((np.cumsum(f) - f / 2) / len(f), 0, 1)

    def worths(self, f):
        cdf = self.cdf(f)
        pairs = zip(self.procedures, self.against, strict=True)
        return np.array([1 - np.mean(p.rank_cdf(cdf) * g) for p, g in pairs]) - self.base

    def tilted(self, phi):
        def law(log_beta):
            weight = np.exp((phi - phi.max()) / np.exp(log_beta))
            return weight / weight.mean()

        def excess(log_beta):
            f = law(log_beta)
            return np.mean(f * np.log(np.maximum(f, 1e-300))) - self.kl

        return law(brentq(excess, -9, 5))

    def __call__(self, weights):
        f, cdf = np.ones_like(self.u), self.u
        for _ in range(150):
            terms = zip(weights, self.procedures, self.against, strict=True)
            slope = sum(w * p.rank_density(cdf) * g for w, p, g in terms)
            tail = np.cumsum(slope[::-1])[::-1] - slope / 2
            f = self.tilted(-tail / len(f))
            cdf = 0.7 * cdf + 0.3 * self.cdf(f)
        return self.worths(f), f


@pytest.mark.parametrize("procedures", [[BestOfN(1), BestOfN(4)], [BestOfN(2), WorstOfN(2)]])
def test_the_minimax_is_that_of_a_grid_by_another_method(procedures):
    """Midpoints err by about 1/400² of the curvature: 1e-4 covers it."""
    exact = robust(procedures, 0.5)
    grid = Grid(procedures, 0.5, exact.limits)

    def bound(share):
        weights = np.array([share, 1 - share])
        return float(weights @ grid(weights)[0])

    best = minimize_scalar(bound, bounds=(0, 1), method="bounded", options={"xatol": 1e-4})
    assert -exact.worst == pytest.approx(best.fun, abs=1e-4)
    assert exact.weights[0] == pytest.approx(best.x, abs=0.02)


def test_the_outer_solver_is_the_same_whatever_the_inner_one():
    procedures = [BestOfN(1), BestOfN(4)]
    exact = robust(procedures, 0.5)
    weights, worths, _ = saddle_point(Grid(procedures, 0.5, exact.limits), 2)
    assert weights @ worths - worths.min() < 1e-6
    assert worths.min() == pytest.approx(-exact.worst, abs=1e-4)


@pytest.mark.parametrize("criterion", ["loss", "win_rate"])
@pytest.mark.parametrize(
    ("procedures", "kl"),
    [
        (BESTS, 0.3),
        ([BestOfN(1), median_of(5), BestOfN(8)], 0.5),
        ([BestOfN(4), WorstOfN(4)], 0.5),
    ],
)
def test_the_certificate_closes_and_active_procedures_are_equally_bad(procedures, kl, criterion):
    found = robust(procedures, kl, criterion=criterion)
    assert found.gap + 1e-12 >= 0
    assert found.gap <= 1e-6
    assert found.is_concave == all(isinstance(p, BestOfN) for p in procedures)
    values = -found.losses if criterion == "loss" else found.win_rates
    active = found.weights > 1e-3
    assert found.weights.sum() == pytest.approx(1)
    assert np.ptp(values[active]) < 1e-4
    assert values.min() >= values[active].min() - 1e-6
    assert abs(found.worst) == pytest.approx(abs(values.min()))


def test_every_other_policy_has_a_worse_worst_case(found, matrix):
    """Negative control: each single optimum, known tilts and random ones, all at this KL."""
    assert matrix.rows == ("best-of-1", "best-of-4", "best-of-16", "log", "robust")
    assert all(matrix.worst_losses[:-1] > found.worst + 1e-3)
    rng = np.random.default_rng(0)
    for t in rng.uniform(-10, 15, 8):
        policy = TiltedPolicy(Exponential(t), beta_for_kl(Exponential(t), 1.0))
        losses = found.limits - [win_rate(policy, p) for p in BESTS]
        assert losses.max() > found.worst


def test_the_smallest_win_rate_is_the_hardest_procedures_own():
    """Why "loss" is the default: at these settings a single sample decides alone."""
    found = robust(BESTS, 1.0, criterion="win_rate")
    assert found.weights == pytest.approx([1, 0, 0], abs=1e-6)
    assert found.worst == pytest.approx(optimal_transform(BestOfN(1), kl=1.0).win_rate, abs=1e-7)


def test_the_robust_transform_is_a_transform(found, matrix):
    transform, u = found.transform, np.linspace(0, 1, 201)
    assert np.all(np.diff(transform(u)) >= 0)
    assert transform(1.0) == 0
    assert beta_for_kl(transform, 1.0) == transform.beta
    policy = TiltedPolicy(transform, transform.beta)
    assert policy.kl == pytest.approx(1.0, abs=1e-9)
    assert transform.law(transform.beta).kl == pytest.approx(1.0, abs=1e-8)
    assert transform.law(transform.beta).log_mass == pytest.approx(policy.log_partition, abs=1e-9)
    np.testing.assert_allclose(matrix.win_rates[-1], found.win_rates, atol=1e-9)
    elsewhere = TiltedPolicy(transform, 2 * transform.beta)
    assert elsewhere.kl < 1
    assert elsewhere.cdf(0.5) == pytest.approx(transform.law(2 * transform.beta).cdf(0.5))
    means = transform.posterior_mean([0, 8, 16], [0, 0, 0], k=16)
    assert np.all(np.diff(means) > 0)


def test_the_matrix_holds_the_win_rates_and_the_diagonal_the_limits(matrix):
    for i, trained in enumerate(BESTS):
        best = optimal_transform(trained, kl=1.0)
        assert matrix.betas[i] == best.beta
        assert matrix.limits[i] == matrix.win_rates[i, i] == best.win_rate
        for j, used in enumerate(BESTS):
            found = win_rate(TiltedPolicy(best, best.beta), used)
            assert matrix.win_rates[i, j] == pytest.approx(found, abs=1e-9)
    assert matrix.losses.min() >= -1e-9
    assert matrix.worst_win_rates.tolist() == matrix.win_rates.min(axis=1).tolist()


def test_a_single_transform_may_be_asked_for_by_another_name():
    found = mismatch(BESTS[:2], 0.5, transforms=[("calibrated", IdentityTransform())])
    assert found.rows[-1] == "calibrated"
    np.testing.assert_allclose(found.win_rates[-1], found.win_rates[0], atol=1e-8)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_heat_map_is_drawn(ending, matrix, tmp_path):
    pytest.importorskip("matplotlib")
    path = write_heatmap(matrix, tmp_path / f"map.{ending}")
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda _: mismatch([BestOfN(4)], 1.0), "1 procedure"),
        (lambda _: mismatch([BestOfN(4), BestOfN(4)], 1.0), "best-of-4 came twice"),
        (lambda _: robust([BestOfN(4), BestOfN(4)], 1.0), "came twice"),
        (lambda _: robust(BESTS, 1.0, criterion="regret"), "criterion is 'regret'"),
        (lambda _: mismatch(BESTS, -1.0), "kl is -1"),
        (lambda _: mismatch(BESTS, 1.0, agreement=1.5), "agreement is 1.5"),
        (lambda m: write_heatmap(m, "map.jpeg"), r"\.png, \.svg"),
        (lambda m: write_heatmap(m, "/nowhere/at/all/map.png"), "no folder"),
    ],
)
def test_bad_questions_are_refused(call, said, matrix):
    with pytest.raises(ValueError, match=said):
        call(matrix)


def test_the_worst_case_may_be_a_gold_judges():
    found = robust(BESTS[:2], 0.5, agreement=0.6)
    rows = mismatch(BESTS[:2], 0.5, transforms=[found.transform], agreement=0.6)
    assert found.gap <= 1e-6
    np.testing.assert_allclose(rows.win_rates[-1], found.win_rates, atol=1e-7)
    assert all(rows.worst_losses[:-1] > found.worst)


def test_far_from_the_reference_and_for_many_candidates_the_digits_hold():
    """Half of the mass of such a law lies within 1e-4 of u = 1."""
    procedures = [BestOfN(2), BestOfN(32)]
    rows = mismatch(procedures, 4.0)
    for i, trained in enumerate(procedures):
        best = optimal_transform(trained, kl=4.0)
        found = win_rate(TiltedPolicy(best, best.beta), trained)
        assert rows.win_rates[i, i] == pytest.approx(found, abs=1e-8)
    assert np.all(rows.losses >= -1e-9)
