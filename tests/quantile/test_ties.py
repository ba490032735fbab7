"""Laws of ties: what is equal counts by its mean."""

import numpy as np
import pytest

from infalign.quantile.panels import TiltedLaw, graded_edges, panel_rule
from infalign.quantile.ties import Tied, Ties
from infalign.quantile.tilting import TiltedPolicy, atoms_kl, tilt_atoms
from infalign.quantile.transforms import Exponential, Log
from members import TRANSFORMS, named

every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=named)
GRADES = Ties.of_masses([0.1, 0.2, 0.0, 0.3, 0.4])
SOME = Ties(((0.05, 0.3), (0.3, 0.4), (0.7, 0.9)))


@pytest.mark.parametrize("ties", [SOME, GRADES, Ties.pass_fail(0.2)], ids=str)
@every_transform
def test_a_tied_transform_is_flat_on_ties_and_keeps_every_mean(transform, ties):
    tied = Tied(transform, ties)
    inside = ties.starts + (ties.ends - ties.starts) * np.array([[0.01], [0.5], [0.99]])
    assert np.ptp(tied(inside), axis=0).max() < 1e-15
    assert np.allclose(
        tied(inside)[0], ties.averages(transform, transform.breaks), rtol=1e-10, atol=1e-12
    )
    assert not np.allclose(transform(inside)[0], transform(inside)[2], rtol=1e-6)
    outside = np.array([0.01, 0.5, 0.65, 0.95])
    outside = outside[ties.index(outside) < 0]
    assert (tied(outside) == transform(outside)).all()


def test_means_by_quadrature_by_integral_and_by_closed_form_agree():
    quadrature = SOME.averages(lambda u: u**7)
    assert np.allclose(quadrature, SOME.averages_of(lambda u: u**8 / 8), rtol=1e-13)
    singular = Ties(((0.0, 0.25), (0.5, 1.0)))
    assert np.allclose(singular.averages(np.log), Log().interval_mean([0, 0.5], [0.25, 1.0]))
    jump = singular.averages(lambda u: (u > 0.1234).astype(float), breaks=(0.1234, 0.6))
    assert np.allclose(jump, [1 - 0.1234 * 4, 1.0], rtol=1e-12)
    careless = singular.averages(lambda u: (u > 0.1234).astype(float))
    assert abs(careless[0] - jump[0]) > 1e-5  # the break has to be told


@every_transform
def test_the_tilt_of_a_fully_tied_transform_is_the_softmax_of_atoms(transform):
    beta, masses = 0.4, np.array([[0.1, 0.2, 0.3, 0.4]])
    tied = Tied(transform, GRADES)
    atoms = tilt_atoms(masses, tied(GRADES.starts)[None], beta)
    policy = TiltedPolicy(tied, beta)
    assert np.allclose(np.diff(policy.cdf(np.append(GRADES.starts, 1.0))), atoms[0], atol=1e-12)
    assert np.isclose(policy.kl, atoms_kl(masses, atoms)[0], rtol=1e-10)


@pytest.mark.parametrize("transform", [Log(), Exponential(10.0)], ids=named)
def test_posterior_means_of_a_tied_transform_are_its_expectation_under_beta_laws(transform):
    from scipy import stats

    tied, k = Tied(transform, SOME), 5
    nodes, weights = panel_rule(SOME.refined(graded_edges()))
    for rank in range(k + 1):
        law = stats.beta(rank + 1, k - rank + 1)
        expected = np.sum(weights * law.pdf(nodes) * tied(nodes))
        assert np.isclose(tied.rank_means(k)[rank], expected, rtol=1e-9)
    assert not np.allclose(tied.rank_means(k), transform.rank_means(k), rtol=1e-3)


def test_no_ties_change_nothing():
    u = np.linspace(0, 1, 7)
    assert (Ties().middle(u) == u).all()
    assert (Tied(Log(), Ties())(u[1:]) == Log()(u[1:])).all()
    assert Ties().breaks == ()
    assert Ties() == Ties(())
    assert hash(Ties()) == hash(Ties(()))
    plain = TiltedLaw.of(lambda u: Log()(u) / 0.5)
    assert np.isclose(TiltedPolicy(Tied(Log(), Ties()), 0.5).kl, plain.kl, rtol=1e-12)


def test_flattened_functions_keep_their_integral():
    nodes, weights = panel_rule(SOME.refined(graded_edges()))
    flat = SOME.flattened(np.exp)(nodes)
    assert np.isclose(np.sum(weights * flat), np.e - 1, rtol=1e-13)
    assert not np.allclose(flat, np.exp(nodes))


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        (((0.5, 0.5),), "Tie 0"),
        (((-0.1, 0.5),), "0 ≤ a < b ≤ 1"),
        (((0.1, 0.2), (0.3, 1.1)), "Tie 1"),
        (((0.1, 0.4), (0.3, 0.5)), "overlaps the one before, which ends at 0.4"),
        (((0.5, 0.6), (0.1, 0.2)), "overlaps"),
        (((0.1, float("nan")),), "Tie 0"),
        (((0.1, 0.2, 0.3),), "Tie 0"),
    ],
)
def test_bad_intervals_are_named(intervals, message):
    with pytest.raises(ValueError, match=message):
        Ties(intervals)


def test_bad_masses_and_pass_probabilities_are_refused():
    for p in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ValueError, match="pass probability"):
            Ties.pass_fail(p)
    for masses in ([0.5, 0.4], [1.5, -0.5], [[0.5, 0.5]], [float("nan"), 1.0]):
        with pytest.raises(ValueError, match="sum to"):
            Ties.of_masses(masses)
