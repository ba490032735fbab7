"""The optimal transform: reference values, the envelope theorem, and solvers that agree."""

import dataclasses

import numpy as np
import pytest
from scipy import integrate

from infalign.quantile import procedures, transforms
from infalign.quantile.optimal import Optimal, optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    OrderStatistic,
    RankProcedure,
    WorstOfN,
    median_of,
)
from infalign.quantile.solvers.shooting import stationary_laws
from infalign.quantile.solvers.stationary import StationaryLaw, residual
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Log
from infalign.quantile.win_rate import win_rate
from members import TRANSFORMS, named

REFERENCE = [  # procedure, KL; win rate in % of identity, log, exp(±10), optimal
    (BestOfN(2), 0.5, (79.170, 76.822, 80.314, 81.563)),
    (BestOfN(4), 0.5, (79.983, 76.822, 87.151, 87.325)),
    (BestOfN(4), 1.0, (87.700, 86.311, 93.510, 94.112)),
    (BestOfN(8), 1.0, (87.869, 86.311, 94.823, 97.597)),
    (BestOfN(16), 2.0, (95.244, 95.015, 97.590, 99.944)),
    (WorstOfN(2), 0.5, (84.034, 85.593, 85.093, 86.027)),
    (WorstOfN(4), 0.5, (88.599, 92.705, 94.762, 94.789)),
]
"""Published to 1e-5 by an independent solver."""
POWERS = [BestOfN(1), BestOfN(2), BestOfN(4), BestOfN(16), WorstOfN(2), WorstOfN(4), WorstOfN(16)]


@pytest.mark.parametrize(("procedure", "kl", "percent"), REFERENCE)
def test_reference_table(procedure, kl, percent):
    sign = 1 if isinstance(procedure, BestOfN) else -1
    members = (
        transforms.Identity(),
        Log(),
        Exponential(10.0 * sign),
        optimal_transform(procedure, kl=kl),
    )
    for transform, expected in zip(members, percent, strict=True):
        policy = TiltedPolicy(transform, beta_for_kl(transform, kl))
        assert abs(win_rate(policy, procedure) - expected / 100) < 2e-5


@pytest.mark.parametrize("procedure", POWERS, ids=named)
@pytest.mark.parametrize("kl", [0.05, 0.5, 2.0])
def test_the_slope_of_the_frontier_is_beta(procedure, kl):
    """The envelope theorem, dW*/dKL = β, by central differences."""
    low, here, high = (optimal_transform(procedure, kl=kl * f) for f in (0.999, 1.0, 1.001))
    if 1 - high.win_rate > 1e-9:  # else the difference has no digits left
        slope = (high.win_rate - low.win_rate) / (high.kl - low.kl)
        assert abs(slope / here.beta - 1) < 1e-3
        assert abs(slope / optimal_transform(procedure, kl=1.01 * kl).beta - 1) > 1e-3


def test_the_residual_notices_a_wrong_beta_and_a_wrong_law():
    right = optimal_transform(BestOfN(4), kl=1.0).law_at_beta
    other = optimal_transform(BestOfN(4), kl=1.001).law_at_beta

    @dataclasses.dataclass(frozen=True)
    class Wrong(StationaryLaw):
        beta: float = right.beta
        kl: float = right.kl
        win_rate: float = right.win_rate

        def evaluate(self, u, x):
            return other.evaluate(u, x)

    assert residual(right, BestOfN(4), BestOfN(4)) < 1e-12
    assert residual(Wrong(), BestOfN(4), BestOfN(4)) > 1e-5
    assert residual(right, BestOfN(4), BestOfN(5)) > 1e-2


def test_nothing_is_handed_out_that_fails_the_check(monkeypatch):
    from infalign.quantile import optimal as module

    monkeypatch.setattr(module, "residual", lambda *_: 1e-3)
    monkeypatch.setattr(module, "self_residual", lambda *_: 1e-3)
    module._checked_curve.cache_clear()
    for procedure in (BestOfN(77), median_of(3)):
        with pytest.raises(ArithmeticError, match="residual"):
            optimal_transform(procedure, kl=0.123456)


@pytest.mark.parametrize("kl", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("procedure", POWERS[1:], ids=named)
def test_no_other_transform_wins_more_at_equal_kl(procedure, kl):
    best = optimal_transform(procedure, kl=kl)
    rivals = [
        *TRANSFORMS,
        Exponential(3.0),
        Exponential(-3.0),
        Exponential(30.0),
        Exponential(-30.0),
    ]
    for rival in rivals:
        policy = TiltedPolicy(rival, beta_for_kl(rival, kl))
        assert win_rate(policy, procedure) <= best.win_rate + 1e-9


def test_an_optimum_for_another_procedure_is_beaten():
    """Negative control of the law above: it is not that "optimal" wins whatever happens."""
    wrong = optimal_transform(WorstOfN(4), kl=0.5)
    rival = Exponential(10.0)
    policy = TiltedPolicy(rival, beta_for_kl(rival, 0.5))
    assert (
        win_rate(policy, BestOfN(4)) > win_rate(TiltedPolicy(wrong, wrong.beta), BestOfN(4)) + 0.05
    )


@pytest.mark.parametrize("name", ["best", "worst"])
def test_identity_is_optimal_without_a_procedure(name):
    single = BestOfN(1) if name == "best" else WorstOfN(1)
    optimal, u = optimal_transform(single, beta=0.2), np.linspace(0, 1, 11)
    assert np.allclose(optimal(u) - optimal(0.0), u, atol=1e-12)
    assert np.allclose(
        optimal.tilted_cdf(u, 0.2), transforms.Identity().tilted_cdf(u, 0.2), atol=1e-13
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "kl"),
    [
        (BestOfN(4), BestOfN(4), 0.5),
        (WorstOfN(4), WorstOfN(4), 0.5),
        (BestOfN(4), BestOfN(16), 0.5),
        (WorstOfN(3), procedures.Identity(), 0.3),
        (BestOfN(16), BestOfN(16), 2.0),
    ],
)
def test_two_unlike_solvers_agree(ours, theirs, kl):
    """The one-curve solution against search and Newton, which know nothing of it: they find no
    other stationary law either."""
    one = optimal_transform(ours, kl=kl, reference_procedure=theirs)
    found = stationary_laws(ours, theirs, kl=kl)
    u = np.linspace(0.01, 0.99, 23)
    assert len(found) == 1
    assert np.isclose(found[0].beta, one.beta, rtol=1e-9)
    assert np.isclose(found[0].win_rate, one.win_rate, atol=1e-12)
    assert np.allclose(
        found[0].evaluate(u, 1 - u)[1], one.law_at_beta.evaluate(u, 1 - u)[1], atol=1e-10
    )


@pytest.mark.parametrize(
    ("procedure", "kl"),
    [
        (median_of(3), 0.2),
        (median_of(5), 2.0),
        (OrderStatistic((0.2, 0.3, 0.5)), 0.5),
        (OrderStatistic((0.0,) * 6 + (1.0, 0.0)), 1.0),
    ],
)
def test_other_rank_procedures_are_solved_too(procedure, kl):
    best = optimal_transform(procedure, kl=kl)
    again = optimal_transform(procedure, beta=best.beta)
    assert best.residual < 1e-10
    assert np.isclose(again.kl, kl, rtol=1e-8)
    assert np.isclose(win_rate(TiltedPolicy(best, best.beta), procedure), best.win_rate, atol=1e-10)
    for rival in (transforms.Identity(), Log(), Exponential(10.0), Exponential(-10.0)):
        policy = TiltedPolicy(rival, beta_for_kl(rival, kl))
        assert win_rate(policy, procedure) < best.win_rate


def test_a_mixture_of_all_ranks_is_no_procedure():
    """Ranks drawn uniformly undo the sorting: Φ = u is found again, by the general solver."""
    optimal, u = optimal_transform(OrderStatistic((0.25,) * 4), kl=1.0), np.linspace(0, 1, 11)
    alone = optimal_transform(BestOfN(1), kl=1.0)
    assert np.allclose(optimal(u) - optimal(0.0), u, atol=1e-11)
    assert np.isclose(optimal.win_rate, alone.win_rate, atol=1e-12)


def test_where_the_frontier_is_not_concave_the_slope_is_still_beta():
    """Worst-of-4 against best-of-4: β first grows with KL, so one β belongs to two optima."""
    unlike = {"reference_procedure": BestOfN(4)}
    low, here, high = (
        optimal_transform(WorstOfN(4), kl=0.5 * f, **unlike) for f in (0.999, 1.0, 1.001)
    )
    slope = (high.win_rate - low.win_rate) / (high.kl - low.kl)
    assert abs(slope / here.beta - 1) < 1e-4
    assert high.beta > here.beta > low.beta


RANKED = [
    t
    for t in TRANSFORMS
    if isinstance(t, Optimal) and isinstance(t.procedure, RankProcedure) and t.agreement == 1
]


@pytest.mark.parametrize("optimal", RANKED, ids=named)
def test_phi_is_the_first_variation(optimal):
    """Φ(u) = −∫_u¹ g(F)·g, by scipy's quadrature."""
    g = optimal.procedure.rank_density

    def slope(v):
        return float(g(optimal.tilted_cdf(v, optimal.beta)) * g(v))

    for u in (0.1, 0.5, 0.9, 0.99):
        area, _ = integrate.quad(slope, u, 1, points=[0.95, 0.995, 0.9995], limit=300)
        assert np.isclose(optimal(u), -area, rtol=1e-8)


def test_small_kl_shapes():
    """As KL → 0 the optimum tends to u^{2N−1} for best-of-N, −(1−u)^{2N−1} for worst-of-N."""
    u = np.linspace(0, 1, 11)
    best, worst = optimal_transform(BestOfN(3), kl=1e-8), optimal_transform(WorstOfN(3), kl=1e-8)
    for optimal, limit in ((best, u**5), (worst, 1 - (1 - u) ** 5)):
        phi = optimal(u) - optimal(0.0)
        assert np.allclose(phi / phi[-1], limit, atol=1e-3)


def test_a_large_n_at_large_kl_keeps_its_digits():
    """17 % of this law lie within 1e-6 of u = 1, where f reaches 2e9: W is still the integral."""
    optimal = optimal_transform(BestOfN(64), kl=3.0)
    policy = TiltedPolicy(optimal, optimal.beta)
    assert abs(win_rate(policy, BestOfN(64)) - optimal.win_rate) < 1e-12
    with pytest.raises(ValueError, match="Solve anew"):
        optimal.tilted_kl(1e-3 * optimal.beta)


def test_what_an_optimum_costs_without_its_procedure():
    """Trained for best-of-32 at one nat, an ordinary win rate of only 61.5 % (identity: 86.5 %)."""
    optimal = optimal_transform(BestOfN(32), kl=1.0)
    assert abs(win_rate(TiltedPolicy(optimal, optimal.beta), BestOfN(1)) - 0.615) < 1e-3


def test_nonsense_is_refused():
    for settings in ({}, {"beta": 0.1, "kl": 0.1}):
        with pytest.raises(ValueError, match="exactly one"):
            optimal_transform(BestOfN(2), **settings)
    for beta in (0.0, -1.0):
        with pytest.raises(ValueError, match="beta is"):
            optimal_transform(BestOfN(2), beta=beta)
    for kl in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="kl is"):
            optimal_transform(BestOfN(2), kl=kl)
    with pytest.raises(ValueError, match="Ask within"):
        optimal_transform(BestOfN(1), kl=30.0)
    with pytest.raises(ValueError, match="larger β"):
        optimal_transform(BestOfN(4), beta=1e-140)
