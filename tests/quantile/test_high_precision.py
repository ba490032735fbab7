"""Optimal laws against 34-digit arithmetic, the laws of the frontier on the whole grid, uniqueness.

The reference solutions come from `benchmarks/planner/high_precision.py`: Taylor series in mpmath on
the boundary-value problem itself, which share nothing with the planner's one-curve solution.
"""

import functools
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from jaxtyping import Float

from infalign.quantile.optimal import Optimal, optimal_transform
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "planner" / "high_precision.py"
LAWS = json.loads(SCRIPT.with_suffix(".json").read_text(encoding="utf-8"))["laws"]
FAMILIES = {"best": BestOfN, "worst": WorstOfN}
KLS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0)
RECOMPUTED = ["best-of-2 at 0.5", "best-of-4 at 1", "worst-of-2 at 4", "worst-of-16 at 0.5"]


@functools.cache
def high_precision():
    """The committed script, as a module."""
    spec = importlib.util.spec_from_file_location("high_precision", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def solved(key: str) -> tuple[Optimal, dict[str, mp.mpf]]:
    """What the planner says to "best-of-4 at 1", and what high precision says."""
    procedure, kl = key.split(" at ")
    family, n = procedure.split("-of-")
    law = {name: mp.mpf(value) for name, value in LAWS[key].items()}
    return optimal_transform(FAMILIES[family](int(n)), kl=float(kl)), law


def loss(optimal: Optimal) -> float:
    """1 − W. For best-of-N it is (β/N)·(log f(1) − KL), which keeps its digits as W goes to 1."""
    if isinstance(optimal.procedure, BestOfN):
        return optimal.beta / optimal.procedure.n * (optimal.top - optimal.kl)
    return 1 - optimal.win_rate


def test_the_spot_grid_is_all_there():
    assert set(LAWS) == {question.key for question in high_precision().questions()}
    assert len(LAWS) == 39


@pytest.mark.parametrize("key", LAWS)
def test_win_rates_equal_the_high_precision_solution(key):
    """W within 1e-9 was asked for; 1e-14 is reached, and β (down to 1e-220) to a relative 1e-11."""
    optimal, law = solved(key)
    assert abs(optimal.win_rate - (1 - law["loss"])) < 1e-13
    assert abs(optimal.beta / law["beta"] - 1) < 1e-10
    assert abs(optimal.top - law["log_f1"]) < 1e-11
    if key.startswith("best"):
        assert abs(loss(optimal) / law["loss"] - 1) < 1e-10


@pytest.mark.parametrize("key", RECOMPUTED)
def test_the_file_of_reference_values_is_what_the_script_computes(key):
    script = high_precision()
    family, n = key.split(" at ")[0].split("-of-")
    with mp.workdps(24):
        again = script.solved(
            q := script.Question(family, int(n), key.split()[-1]), script.rough(q)
        )
        for name, value in again.items():
            assert abs(value / mp.mpf(LAWS[key][name]) - 1) < mp.mpf("1e-15")


def test_the_high_precision_solver_is_no_echo_of_its_start():
    """Negative control: begun from another place it ends at the same law, and a wrong law's misses
    are seen."""
    script = high_precision()
    question = script.Question("best", 2, "0.5")
    with mp.workdps(18):
        q, log_beta = script.rough(question)
        again = script.solved(question, (q - 0.002, log_beta + 0.001))
        assert abs(again["loss"] / mp.mpf(LAWS[question.key]["loss"]) - 1) < mp.mpf("1e-11")
        wrong = script.shot(question, mp.mpf(q), mp.mpf(log_beta) + mp.mpf("1e-6"))
        assert abs(wrong.mass - 1) > 1e-8


@pytest.mark.parametrize("family", FAMILIES.values())
@pytest.mark.parametrize("kl", KLS)
def test_every_n_to_128_is_solved_to_a_small_residual(family, kl):
    """1e-9 was asked for; the largest of the 2560 is 2.3e-13."""
    for n in range(1, 129):
        optimal = optimal_transform(family(n), kl=kl)
        assert optimal.residual <= 1e-12
        assert abs(optimal.kl / kl - 1) < 1e-12
        assert 0.5 < optimal.win_rate <= 1


def frontier_slope(procedure: RankProcedure, kl: float) -> float:
    """dW*/dKL, by differences that are wrong by less than 1e-9 themselves.

    log(1 − W*) is differenced against log KL, in which the frontier is close to straight also where
    it saturates, over ±0.12, ±0.06 and ±0.03; two rounds of Richardson take out h² and h⁴.
    """

    def central(h: float) -> float:
        a, b = (loss(optimal_transform(procedure, kl=kl * np.exp(s))) for s in (-h, h))
        return float(np.log(b / a) / (2 * h))

    wide, middle, narrow = map(central, (0.12, 0.06, 0.03))
    first, second = (4 * middle - wide) / 3, (4 * narrow - middle) / 3
    slope = (16 * second - first) / 15
    return -slope * loss(optimal_transform(procedure, kl=kl)) / kl


@pytest.mark.parametrize("family", FAMILIES.values())
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 16, 32, 64, 100, 128])
def test_the_slope_of_the_frontier_is_beta_to_six_digits(family, n):
    """dW*/dKL = β to a relative 1e-6, and closer where W has the digits.

    Best-of-N has them everywhere (see `loss`): 1e-9. The W of worst-of-N is known to 2e-16 and no
    better, so 2e-16/(β·KL·0.03) is what its differences are worth: they say nothing once W is 1 to
    all digits (worst-of-128 from half a nat on). There, β is held to the high-precision solution.
    """
    for kl in KLS:
        procedure = family(n)
        beta = optimal_transform(procedure, kl=kl).beta
        known = 1e-9 if family is BestOfN else 1e-9 + 2e-14 / (beta * kl)
        if known < 1e-6:
            assert abs(frontier_slope(procedure, kl) / beta - 1) < known


def test_the_slopes_would_notice_a_beta_wrong_by_a_millionth():
    """Negative control: β of a KL wrong by 1e-6 is told from the right one."""
    slope = frontier_slope(BestOfN(16), 1.0)
    assert abs(slope / optimal_transform(BestOfN(16), kl=1.0).beta - 1) < 1e-9
    assert abs(slope / optimal_transform(BestOfN(16), kl=1 + 1e-6).beta - 1) > 1e-6


def masses(
    ours: RankProcedure, theirs: RankProcedure, beta: float, starts: Float[np.ndarray, "Q"]
) -> Float[np.ndarray, "Q"]:
    """P(1) of the shots P′ = e^s, s′ = −g(1−P)·g_ref(1−x)/β from P = 0, s = q, for every q at once.

    Runge–Kutta in steps of x no longer than a fiftieth of what has been passed, from 1e-9 on.
    """
    x = np.append(0.0, np.geomspace(1e-9, 1.0, 1200))
    state = np.stack([np.zeros_like(starts), starts])

    def slopes(x: float, y: np.ndarray) -> np.ndarray:
        force = ours.rank_density(np.clip(1 - y[0], 0.0, 1.0))
        pull = float(theirs.rank_density(1 - x)) / beta
        return np.stack([np.exp(np.minimum(y[1], 300.0)), -force * pull])

    for left, right in itertools.pairwise(x.tolist()):
        h = right - left
        a = slopes(left, state)
        b = slopes(left + h / 2, state + h / 2 * a)
        c = slopes(left + h / 2, state + h / 2 * b)
        state = state + h / 6 * (a + 2 * b + 2 * c + slopes(right, state + h * c))
    return state[0]


def stationary_starts(ours: RankProcedure, theirs: RankProcedure, beta: float) -> np.ndarray:
    """Every q = log f(1) on a scan of 2001 at which P(1) has just passed 1.

    A stationary law *is* a q with P(1) = 1, so this searches all laws, not starts of an iteration.
    s falls with x, so q is the largest log f and q ≥ 0. With c = max g·max g_ref/β, s ≥ q − c·x: no
    law has q > c, nor (as c·e⁻⁶⁰ is nothing) q > 60, where P passes 1 before x = e⁻⁵⁹.
    """
    grid = np.linspace(0, 1, 201)
    c = float(ours.rank_density(grid).max() * theirs.rank_density(grid).max()) / beta
    assert c < 1e20
    starts = np.linspace(0.0, min(c, 60.0), 2001)
    above = masses(ours, theirs, beta, starts) > 1
    return starts[1:][above[1:] != above[:-1]]


@pytest.mark.parametrize("n", [2, 4, 16])
@pytest.mark.parametrize("kl", [0.05, 0.5, 2.0])
def test_worst_of_n_has_one_stationary_law_where_its_win_rate_is_not_concave(n, kl):
    """`docs/theory.md` proves it by scaling. Here it is searched for: all shots from u = 1 at this
    β, scanned over their only parameter; exactly one is a law, the one that was solved for."""
    worst = WorstOfN(n)
    optimal = optimal_transform(worst, kl=kl)
    (start,) = stationary_starts(worst, worst, optimal.beta)
    assert abs(start - optimal.top) < 0.031


def test_the_search_finds_several_laws_where_there_are_several():
    """Negative control: worst-of-4 against best-of-4, where β first grows with KL. At the β of the
    optimum of 0.45 nats the scan finds three laws: that one, the best at this β, and a third."""
    ours, theirs = WorstOfN(4), BestOfN(4)
    near = optimal_transform(ours, kl=0.45, reference_procedure=theirs)
    best = optimal_transform(ours, beta=near.beta, reference_procedure=theirs)
    starts = stationary_starts(ours, theirs, near.beta)
    assert len(starts) == 3
    assert best.kl > 1
    for law in (near, best):
        assert np.abs(starts - law.top).min() < 0.031
