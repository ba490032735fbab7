"""Diagnostics against what is known of an autoregressive series, and against the definition."""

import numpy as np
import pytest

from infalign.decoding.mcmc import effective_samples, split_r_hat


def autoregressive(rho, chains, size, rng):
    noise = rng.standard_normal((chains, size))
    series = np.empty_like(noise)
    series[:, 0] = noise[:, 0]
    for t in range(1, size):
        series[:, t] = rho * series[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return series


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_samples_of_a_known_series(rho):
    """M·T·(1 − ρ)/(1 + ρ), within 10 %; 8 chains of 5,000."""
    traces = autoregressive(rho, 8, 5000, np.random.default_rng(0))
    known = traces.size * (1 - rho) / (1 + rho)
    assert effective_samples(traces) == pytest.approx(known, rel=0.1)


def test_r_hat_sees_chains_apart_and_chains_that_drift():
    rng = np.random.default_rng(0)
    together = rng.standard_normal((4, 500))
    assert split_r_hat(together) == pytest.approx(1, abs=0.01)
    assert split_r_hat(together + np.array([[0], [0], [0], [2]])) > 1.1
    assert split_r_hat(together + np.linspace(0, 3, 500)) > 1.1


def test_where_there_is_no_number_there_is_none():
    constant, short = np.ones((2, 100)), np.array([[1.0, 2.0, 3.0]] * 2)
    missing = np.array([[1.0, np.nan, 2.0, 3.0, 4.0]] * 2)
    for traces in (constant, short, missing):
        assert effective_samples(traces) is None
        assert split_r_hat(traces) is None
    assert split_r_hat(np.arange(100.0)[None]) is None
    stuck = np.repeat([[0.0], [1.0]], 100, axis=1)
    assert split_r_hat(stuck) is None or split_r_hat(stuck) > 2
