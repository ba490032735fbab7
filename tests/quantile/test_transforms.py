"""Laws of every transform."""

import dataclasses

import mpmath
import numpy as np
import pytest
from scipy import integrate, special

from infalign.quantile import transforms
from infalign.quantile.optimal import Optimal
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.transforms import Custom, Exponential, Log, Transform
from members import TRANSFORMS, named

every_transform = pytest.mark.parametrize("transform", TRANSFORMS, ids=named)


@dataclasses.dataclass(frozen=True)
class Shifted(Transform):
    """Φ + constant."""

    base: Transform
    shift: float

    @property
    def name(self):
        return "shifted"

    def __call__(self, u):
        return self.base(u) + self.shift


def beta_of(transform):
    return getattr(transform, "beta", 0.3)


@every_transform
def test_increases(transform):
    u = np.linspace(0, 1, 2001)
    # Where an optimum has converged to its limits it is level but for the last digit.
    steps = np.diff(transform(u)[1:])
    if isinstance(transform, Optimal) and not isinstance(transform.procedure, RankProcedure):
        assert transform(u).max() == transform(np.array([1.0]))[0]  # see its docstring
    elif transform.name == "optimal":
        assert (steps >= -1e-14 * steps.sum()).all()
        assert (steps > 0).mean() > 0.5
    else:
        assert (steps > 0).all()


@every_transform
def test_is_elementwise_and_keeps_shapes(transform):
    u = np.random.default_rng(0).random((3, 4))
    assert transform(u).shape == (3, 4)
    assert np.allclose(transform(u)[1], transform(u[1]), rtol=1e-14)
    assert transform(0.5).shape == ()


@every_transform
def test_log_partition_equals_quadrature(transform):
    beta = beta_of(transform)
    points = [1e-6, 1e-3, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999]
    z, _ = integrate.quad(
        lambda u: float(np.exp(transform(u) / beta)), 0, 1, points=points, limit=400, epsabs=0
    )
    assert np.isclose(transform.log_partition(beta), np.log(z), atol=1e-9)
    assert not np.isclose(transform.log_partition(1.02 * beta), np.log(z), atol=1e-4)


@every_transform
def test_an_added_constant_changes_nothing_but_the_partition(transform):
    beta, shifted, u = beta_of(transform), Shifted(transform, 2.5), np.linspace(0.01, 1, 7)
    assert np.isclose(
        shifted.log_partition(beta), transform.log_partition(beta) + 2.5 / beta, rtol=1e-12
    )
    assert np.allclose(shifted.tilted_cdf(u, beta), transform.tilted_cdf(u, beta), atol=1e-11)
    assert np.isclose(shifted.tilted_kl(beta), transform.tilted_kl(beta), atol=1e-10)


def test_a_factor_changes_the_tilt():
    """Negative control of the law above."""
    doubled = dataclasses.make_dataclass(
        "Doubled", [], bases=(Transform,), frozen=True,
        namespace={"name": "doubled", "__call__": lambda self, u: 2 * np.asarray(u)},
    )()  # fmt: skip
    assert abs(doubled.tilted_kl(0.3) - transforms.Identity().tilted_kl(0.3)) > 0.1


@every_transform
def test_posterior_mean_of_a_rank_is_the_beta_expectation(transform):
    k = 7
    means = transform.posterior_mean(np.arange(k + 1), np.zeros(k + 1, int), k)
    for r in range(k + 1):

        def weighted(u, r=r):
            return float(transform(u)) * u**r * (1 - u) ** (k - r) / special.beta(r + 1, k - r + 1)

        points = [1e-4, 0.5, 0.9, 0.99, 0.9999]
        expected, _ = integrate.quad(weighted, 0, 1, points=points, limit=400, epsabs=1e-13)
        assert np.isclose(means[r], expected, rtol=1e-9, atol=1e-11)
    assert not np.isclose(means[-1], transform(1.0), atol=1e-5)  # what the plug-in would say


def test_posterior_means_have_their_closed_forms():
    k, r = 64, np.arange(65)
    quadrature = Transform._posterior_means
    assert np.allclose(Log().rank_means(k), quadrature(Log(), k), atol=1e-10)
    identity = transforms.Identity()
    assert np.allclose(identity.rank_means(k), quadrature(identity, k), atol=1e-13)
    for t in (10.0, -10.0, 40.0):
        moment = [float(mpmath.hyp1f1(int(i) + 1, k + 2, t)) for i in r]
        assert np.allclose(Exponential(t).rank_means(k), (np.array(moment) - 1) / np.expm1(t))


def test_tied_ranks_are_averaged():
    transform, k = Exponential(10.0), 5
    means = transform.posterior_mean(np.arange(6), np.zeros(6, int), k)
    assert np.isclose(transform.posterior_mean(2, 3, k), means[2:6].mean(), rtol=1e-14)
    assert transform.posterior_mean([[0, 5]], [[5, 0]], k).shape == (1, 2)


@every_transform
def test_finite_partition_is_the_mean_over_ranks(transform):
    beta, k = beta_of(transform), 12
    means = transform.posterior_mean(np.arange(k + 1), np.zeros(k + 1, int), k)
    z = np.exp(means / beta).mean()
    assert np.isclose(transform.finite_log_partition(beta, k), np.log(z), rtol=1e-12)


@every_transform
def test_finite_partition_tends_to_the_integral(transform):
    beta = beta_of(transform)
    distance = [
        abs(transform.finite_log_partition(beta, k) - transform.log_partition(beta))
        for k in (10, 100, 1000)
    ]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.03


@every_transform
def test_interval_mean_is_the_average(transform):
    for a, b in [(0.0, 1.0), (0.2, 0.9), (0.97, 1.0), (0.3, 0.3001), (0.0, 1e-3)]:
        whole, _ = integrate.quad(lambda u: float(transform(u)), a, b, limit=200, epsabs=1e-14)
        assert np.isclose(transform.interval_mean(a, b), whole / (b - a), rtol=1e-7, atol=1e-9)
    assert np.isclose(transform.interval_mean(0.4, 0.4), transform(0.4), rtol=1e-12)
    assert not np.isclose(transform.interval_mean(0.2, 0.9), transform(0.55), rtol=1e-6) or (
        transform.name == "identity"
    )


@every_transform
def test_interval_means_of_a_partition_average_to_the_whole(transform):
    edges = np.array([0.0, 0.1, 0.15, 0.6, 0.99, 1.0])
    parts = transform.interval_mean(edges[:-1], edges[1:])
    assert np.isclose(np.diff(edges) @ parts, transform.interval_mean(0.0, 1.0), rtol=1e-8)


def test_rejections_say_what_is_wrong():
    with pytest.raises(ValueError, match="beta is 0"):
        Log().log_partition(0.0)
    with pytest.raises(ValueError, match="beta is -1"):
        transforms.Identity().tilted_kl(-1.0)
    with pytest.raises(ValueError, match="t is 0"):
        Exponential(0.0)
    with pytest.raises(ValueError, match="k = 3"):
        Log().posterior_mean(2, 2, 3)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda u: -u, "falls from -0 at u = 0 to -1 at u = 1;"),
        (lambda u: np.abs(u - 0.5), "falls from 0.5 at u = 0 to 0 at u = 0.5;"),
        (lambda u: u - 0.2 * (u > 0.7), r"falls from 0\.69\d+ at u = 0\.69\d+ to 0\.5 at u = 0\.7"),
        (lambda u: 1 / (1 - u), "is inf at u = 1;"),
        (lambda u: np.where(u < 0.3, np.nan, u), "is nan at u = 0;"),
        (lambda u: 0 * u, "is 0 everywhere"),
        (lambda u: float(np.sum(u)), "one number for each entry"),
    ],
)
def test_a_function_that_is_no_transform_is_refused_and_told_where(function, said):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=said):
        Custom(function, "mine")


def test_a_function_of_ones_own_is_like_the_member():
    mine, theirs = Custom(np.log, "mine"), Log()
    assert abs(mine.tilted_kl(0.4) - theirs.tilted_kl(0.4)) < 1e-10
    assert np.allclose(mine.rank_means(8), theirs.rank_means(8), atol=1e-8)
