"""The optimum for any procedure, judge and ties: unlike solvers, closed forms, the envelope."""

import numpy as np
import pytest
from scipy import optimize

from infalign.quantile import procedures, transforms
from infalign.quantile.mesh import COARSE, FINE
from infalign.quantile.opponent import Opponent
from infalign.quantile.optimal import is_concave, optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    MetropolisHastings,
    OrderStatistic,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_poisson,
    median_of,
)
from infalign.quantile.solvers.newton import MeshLaw
from infalign.quantile.solvers.objective import Objective, Term
from infalign.quantile.solvers.variational import self_residual, stationary_law
from infalign.quantile.ties import Tied, Ties
from infalign.quantile.tilting import TiltedPolicy, atoms_kl, beta_for_kl
from infalign.quantile.transforms import Exponential, Log
from infalign.quantile.win_rate import atomic_win_rate, frontier, reference_win_rate, win_rate
from members import QUANTILE_PROCEDURES, named

HARD = [
    p for p in QUANTILE_PROCEDURES if p.candidates > 1 and p != MetropolisHastings(16, beta=1 / 15)
]
every_quantile_procedure = pytest.mark.parametrize("procedure", HARD, ids=named)
RIVALS = [transforms.Identity(), Log(), *(Exponential(t) for t in (-10.0, 3.0, 10.0))]


def objective_of(procedure, agreement=1.0, ties=Ties()):  # noqa: B008
    return Objective.of(procedure, None, agreement, ties)


@pytest.mark.parametrize(
    ("procedure", "kl"),
    [(BestOfN(4), 0.1), (BestOfN(16), 1.0), (WorstOfN(4), 1.0), (median_of(5), 2.0)],
    ids=lambda x: named(x) if hasattr(x, "name") else x,
)
def test_it_agrees_with_the_solvers_made_for_ranks(procedure, kl):
    ours, theirs = (
        stationary_law(objective_of(procedure), kl=kl),
        optimal_transform(procedure, kl=kl),
    )
    u = np.linspace(0.01, 0.99, 23)
    assert abs(ours.win_rate - theirs.win_rate) < 1e-12
    assert abs(ours.beta / theirs.beta - 1) < 1e-11
    cdf = theirs.law_at_beta.evaluate(u, 1 - u)[1]
    assert np.allclose(ours.evaluate(u, 1 - u)[1], cdf, atol=1e-11)


@every_quantile_procedure
@pytest.mark.parametrize("kl", [0.02, 1.0])
def test_quantile_procedures_are_solved_to_a_small_residual(procedure, kl):
    best = optimal_transform(procedure, kl=kl)
    assert best.residual <= 1e-11
    assert abs(best.kl / kl - 1) < 1e-11
    policy = TiltedPolicy(best, best.beta)
    assert abs(win_rate(policy, procedure) - best.win_rate) < 1e-10
    assert abs(policy.transform.law(best.beta).kl / kl - 1) < 1e-6  # integrated on other panels
    for rival in RIVALS:
        assert win_rate(TiltedPolicy(rival, beta_for_kl(rival, kl)), procedure) < best.win_rate


@pytest.mark.parametrize(
    ("procedure", "agreement"),
    [
        *((p, 1.0) for p in (RewindAndRepeat(0.5, 4), SoftBestOfN(4, 0.1), MetropolisHastings(4))),
        (BestOfN(4), 0.5),
        (WorstOfN(4), 0.8),
        (best_of_poisson(4.0), 1.0),
    ],
    ids=lambda x: named(x) if hasattr(x, "name") else x,
)
def test_the_slope_of_the_frontier_is_beta(procedure, agreement):
    """dW*/dKL = β, by central differences with one step of Richardson's extrapolation."""
    kl, law = 0.5, None
    rates = {}
    law = stationary_law(objective_of(procedure, agreement), kl=kl)
    for share in (0.98, 0.99, 1.01, 1.02):
        near = stationary_law(objective_of(procedure, agreement), kl=share * kl, near=law)
        rates[share] = near.win_rate
    wide = (rates[1.02] - rates[0.98]) / (0.04 * kl)
    narrow = (rates[1.01] - rates[0.99]) / (0.02 * kl)
    assert abs((4 * narrow - wide) / 3 / law.beta - 1) < 1e-6
    assert abs(wide / law.beta - 1) > 1e-6  # without it the test could not tell


def test_by_beta_and_by_kl_are_the_same_law():
    by_kl = optimal_transform(SoftBestOfN(4, 0.1), kl=0.7)
    by_beta = optimal_transform(SoftBestOfN(4, 0.1), beta=by_kl.beta)
    assert abs(by_beta.kl - 0.7) < 1e-9
    assert abs(by_beta.win_rate - by_kl.win_rate) < 1e-11


def test_the_optimum_of_rewind_and_repeat_is_piecewise_exponential():
    """Against itself h is linear on each side of φ, so log f = ψ/β is too: two slopes known."""
    phi, m, kl = 0.6, 3, 0.4
    best = optimal_transform(RewindAndRepeat(phi, m), kl=kl)
    u = np.array([0.1, 0.5, 0.7, 0.95])
    log_f, _ = best.law_at_beta.evaluate(u, 1 - u)
    q = float(best.law_at_beta.evaluate(np.array([phi]), np.array([1 - phi]))[1][0])
    slopes = [(log_f[1] - log_f[0]) / 0.4, (log_f[3] - log_f[2]) / 0.25]
    b = lambda p: (1 - p**m) / (1 - p)  # noqa: E731
    assert np.allclose(slopes, [(q * phi) ** (m - 1) / best.beta, b(q) * b(phi) / best.beta])
    assert log_f[1] > log_f[2] - 0.25 * slopes[1]  # it falls at φ
    assert best.breaks == (phi,)


def test_limits_of_quantile_procedures_are_those_of_ranks():
    kl = 0.5
    single, best = (optimal_transform(BestOfN(n), kl=kl).win_rate for n in (1, 4))
    assert abs(optimal_transform(SoftBestOfN(4, 1e3), kl=kl).win_rate - single) < 1e-3
    assert abs(optimal_transform(SoftBestOfN(4, 0.006), kl=kl).win_rate - best) < 2e-3
    for alone in (MetropolisHastings(0), RewindAndRepeat(0.5, 1), SoftBestOfN(1, 0.1)):
        assert abs(optimal_transform(alone, kl=kl).win_rate - single) < 1e-12


def test_the_self_check_notices_a_wrong_beta_and_a_wrong_law():
    objective = objective_of(SoftBestOfN(4, 0.1))
    law = stationary_law(objective, kl=0.5)
    wrong_beta = MeshLaw(law.mesh, law.log_density, 1.001 * law.beta, law.kl, law.wins)
    assert self_residual(objective, law) < 1e-11
    assert self_residual(objective, wrong_beta) > 1e-6
    assert self_residual(objective_of(SoftBestOfN(4, 0.11)), law) > 1e-4


def test_concave_is_said_of_the_right_ones():
    assert is_concave(BestOfN(4))
    assert is_concave(best_of_poisson(3.0))
    assert is_concave(OrderStatistic((0.1, 0.3, 0.6)))
    for other in (WorstOfN(2), median_of(3), SoftBestOfN(2, 0.1)):
        assert not is_concave(other)


def test_starts_far_apart_find_one_law():
    """Worst-of-4: W is not concave, but the stationary law is unique (docs/theory.md); from unlike
    starts Newton's method comes to no other. Of worst-of-4 against best-of-4 it finds several."""
    from infalign.quantile.solvers.variational import _solved, _unlike_tilts

    def found(reference, beta):
        objective = Objective.of(WorstOfN(4), reference, 1.0, Ties())
        mesh = objective.mesh(COARSE)
        starts = [s for kl in (0.01, 0.5, 2.0) for s in _unlike_tilts(mesh, kl)]
        laws = [_solved(objective, mesh, start, None, beta) for start in starts]
        wins = [law.win_rate for law in laws if law is not None]
        assert len(wins) >= 6
        return len(np.unique(np.round(wins, 4)))

    assert found(None, 0.3) == 1
    here = optimal_transform(WorstOfN(4), kl=0.5, reference_procedure=BestOfN(4))
    assert found(BestOfN(4), here.beta) == 3


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(3), SoftBestOfN(3, 0.2)], ids=named)
def test_a_discrete_reward_is_solved_like_its_atoms(procedure):
    """Three grades: the best of all masses at that KL, by scipy's optimiser on the simplex."""
    masses, kl = np.array([0.5, 0.3, 0.2]), 0.2
    ties = Ties.of_masses(masses)
    best = optimal_transform(procedure, kl=kl, ties=ties)
    objective = objective_of(procedure, ties=ties)
    mesh = objective.mesh(FINE)

    def win(grades):
        return float(objective.win_rate(mesh, (grades / masses)[ties.index(mesh.u)]))

    def divergence(grades):
        return float(atoms_kl(masses[None], grades[None])[0])

    found = optimize.minimize(
        lambda grades: -win(grades),
        np.array([0.35, 0.35, 0.3]),
        bounds=[(1e-9, 1)] * 3,
        constraints=[
            {"type": "eq", "fun": lambda grades: grades.sum() - 1},
            {"type": "ineq", "fun": lambda grades: kl - divergence(grades)},
        ],
        options={"ftol": 1e-13},
    )
    assert abs(best.win_rate + found.fun) < 1e-7
    grades = best.tilted_cdf(np.array([0.5, 0.8, 1.0]), best.beta)
    assert np.allclose(np.diff(grades, prepend=0), found.x, atol=1e-4)
    if not isinstance(procedure, SoftBestOfN):
        exact = atomic_win_rate(found.x[None], masses[None], np.arange(3.0)[None], procedure)
        assert abs(exact[0] + found.fun) < 1e-9


def test_ties_of_no_mass_change_nothing_and_a_tie_costs():
    """A tie at the top leaves fewer answers to tell apart."""
    kl, plain = 0.5, optimal_transform(BestOfN(4), kl=0.5).win_rate
    thin = optimal_transform(BestOfN(4), kl=kl, ties=Ties(((0.3, 0.3001),))).win_rate
    top = optimal_transform(BestOfN(4), kl=kl, ties=Ties(((0.7, 1.0),))).win_rate
    assert abs(thin - plain) < 1e-5
    assert top < plain - 0.05


def test_a_judge_changes_what_is_best():
    kl, procedure = 1.0, BestOfN(4)
    own, gold = (
        optimal_transform(procedure, kl=kl),
        optimal_transform(procedure, kl=kl, agreement=0.5),
    )
    by_judge = win_rate(TiltedPolicy(own, own.beta), procedure, agreement=0.5)
    assert by_judge < gold.win_rate - 1e-3 < own.win_rate
    assert abs(optimal_transform(procedure, kl=kl, agreement=0.9999).win_rate - own.win_rate) < 2e-3


def test_a_weighted_sum_lies_between_its_parts():
    pair = (BestOfN(1), BestOfN(16))
    terms = tuple(Term(p, Opponent(p), 0.5) for p in pair)
    both = stationary_law(Objective(terms), kl=0.5)
    u = both.mesh
    wins = [
        float(Objective((Term(p, Opponent(p)),)).win_rate(u, np.exp(both.log_density)))
        for p in pair
    ]
    assert abs(np.mean(wins) - both.win_rate) < 1e-12
    for procedure, won, other in zip(pair, wins, pair[::-1], strict=True):
        best = optimal_transform(procedure, kl=0.5)
        crossed = win_rate(TiltedPolicy(best, best.beta), other)
        assert won < best.win_rate
        assert np.mean([best.win_rate, crossed]) < both.win_rate


@pytest.mark.parametrize("procedure", [SoftBestOfN(4, 0.1), median_of(3), BestOfN(8)], ids=named)
def test_a_frontier_in_one_walk_is_each_law_by_itself(procedure):
    kls = [0.0, 1.2, 0.1, 0.4]
    each = [0.5, *(optimal_transform(procedure, kl=kl).win_rate for kl in kls[1:])]
    assert np.allclose(frontier(procedure, kls), each, atol=1e-10)


def test_a_long_frontier_is_interpolated_closely():
    kls = np.linspace(0.02, 2.0, 60)
    rates = frontier(SoftBestOfN(4, 0.1), list(kls))
    for place in (0, 7, 31, 59):
        alone = optimal_transform(SoftBestOfN(4, 0.1), kl=kls[place]).win_rate
        assert abs(rates[place] - alone) < 1e-6


def test_the_reference_against_itself_decoded_otherwise():
    """Rewinding against a single sample: ∫ u dT(U) by hand, φ = ½, M = 2: ¾ of 1.5 draws' worth."""
    rewind = RewindAndRepeat(0.5, 2)
    by_hand = 0.5 * 0.25 * 0.5 + 1.5 * 0.75 * 0.5
    assert abs(reference_win_rate(rewind, procedures.Identity()) - by_hand) < 1e-12
    assert reference_win_rate(rewind, rewind) == 0.5


def test_a_flattened_transform_wins_what_is_predicted():
    ties = Ties.pass_fail(0.25)
    flat = Tied(Exponential(10.0), ties)
    policy = TiltedPolicy(flat, beta_for_kl(flat, 0.2))
    passes = 1 - policy.cdf(np.array([0.75]))
    masses, reference = np.append(1 - passes, passes)[None], np.array([[0.75, 0.25]])
    exact = atomic_win_rate(masses, reference, np.array([[0.0, 1.0]]), BestOfN(4))[0]
    assert abs(win_rate(policy, BestOfN(4), ties=ties) - exact) < 1e-10


@pytest.mark.parametrize("agreement", [0.0, -0.5])
def test_no_optimum_for_a_judge_who_disagrees(agreement):
    with pytest.raises(ValueError, match="not worth"):
        optimal_transform(BestOfN(4), kl=0.5, agreement=agreement)


@pytest.mark.parametrize("n", [1, 4, 16, 64])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_pass_or_fail_is_known_without_a_search(n, p):
    """The chance to pass from the KL by scipy, the win rate from G, up to the last of the KL."""
    for share in (0.1, 0.5, 0.98):
        kl = -share * np.log(p)
        masses = np.array([[1 - p, p]])

        def excess(q, masses=masses, kl=kl):
            return float(atoms_kl(masses, np.array([[1 - q, q]]))[0]) - kl

        passing = optimize.brentq(excess, p, 1 - 1e-15)
        best = optimal_transform(BestOfN(n), kl=kl, ties=Ties.pass_fail(p))
        ours = np.array([[1 - passing, passing]])
        exact = atomic_win_rate(ours, masses, np.array([[0.0, 1.0]]), BestOfN(n))[0]
        assert abs(best.win_rate - exact) < 1e-9
        assert best.residual < 1e-11
        assert best.beta > 0


def test_near_the_reach_of_a_tie_three_grades_still_have_digits():
    ties = Ties.of_masses([0.5, 0.3, 0.2])
    best = optimal_transform(BestOfN(4), kl=0.9 * -np.log(0.2), ties=ties)
    assert best.residual < 1e-11


def test_a_kl_beyond_the_best_tie_is_refused():
    with pytest.raises(ValueError, match=r"less than 1\.20397 nats"):
        optimal_transform(BestOfN(4), kl=1.3, ties=Ties.pass_fail(0.3))
    with pytest.raises(ValueError, match="cannot be improved"):
        optimal_transform(BestOfN(4), kl=0.1, ties=Ties(((0.0, 1.0),)))
