"""Claim 4: rewards that can be gamed, and what of it is exact."""

import copy

import numpy as np
import pytest
from benchmarks.arena import runs
from benchmarks.arena.measuring import wins
from benchmarks.hacking.cases import Case, honest
from benchmarks.hacking.judged import DECODED, ideal, judged
from benchmarks.hacking.measuring import ideals
from benchmarks.hacking.run import main
from benchmarks.hacking.shown import Part, rows, seen
from benchmarks.worlds.biased import Errors, Keyword, Length, Planted, biased, spread, words_near
from benchmarks.worlds.made import made

from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Identity


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "FOLDER", tmp_path_factory.mktemp("runs"))
        return main(["--smoke"])


@pytest.fixture(scope="module")
def smoke(result):
    return result["worlds"]["made"]


def test_training_reaches_the_exact_optima(smoke):
    """600 steps of a free table end within 0.02 in total variation; the methods are 0.1 apart."""
    (row,) = smoke["cases"]["rare word"]["trained"]
    assert set(row["methods"]) == {"raw", "normalised", "identity", "optimal"}
    for found in row["methods"].values():
        assert found["kl"] == pytest.approx(1.0, abs=1e-3)
        assert found["away"] < 0.02
    gamed = {name: found["gamed"]["plain"] for name, found in row["methods"].items()}
    assert gamed["raw"] > gamed["identity"] + 0.1


def test_a_rare_exploit_out_of_scale_takes_more_of_raw_than_of_calibrated(smoke):
    huge = smoke["sweep"][-1]
    assert huge["size"] == 10
    raw, calibrated = (huge["methods"][name] for name in ("raw", "identity"))
    assert raw["gamed"]["plain"] > calibrated["gamed"]["plain"] + 0.1
    for what in ("minus", "spared"):
        assert calibrated[what]["raw"]["plain"][1] > 0  # the lower end of its 95 % interval


def test_without_a_bias_nothing_is_lost(smoke):
    start = smoke["sweep"][0]
    assert start["size"] == 0
    for name in ("identity", "optimal"):
        for found in start["methods"][name]["spared"].values():
            assert found == {"plain": [0.0, 0.0, 0.0], "best-of-4": [0.0, 0.0, 0.0]}


def test_a_line_of_the_table_holds_only_where_nothing_is_behind(result):
    """Turning one comparison round makes the line a negative one; eight in every full part."""
    found = copy.deepcopy(result)
    methods = found["worlds"]["made"]["cases"]["rare word"]["ideal"]
    assert len(list(seen(Part("here", methods)))) == 16
    for name in ("identity", "optimal"):
        for what in ("minus", "spared"):
            for few in methods[name][what].values():
                few |= {"plain": [0.1, 0.05, 0.15], "best-of-4": [0.1, 0.05, 0.15]}
    found["worlds"]["made"]["cases"]["rare word"]["trained"] = []
    (line,) = (row for row in rows(found) if "keyword" in row.claim)
    assert line.holds is True
    methods["optimal"]["spared"]["raw"]["best-of-4"] = [-0.013, -0.021, -0.005]
    (line,) = (row for row in rows(found) if "keyword" in row.claim)
    assert line.holds is False
    assert "behind in 1" in line.number
    assert "−1.3 (−2.1 to −0.5) less" in line.number


def test_the_interval_at_equal_kl_is_that_of_prompts_with_a_kl_of_their_own():
    """Two policies that follow one curve W(KL) exactly differ by nothing, and surely so.

    The spread of their win rates over prompts comes from that of their KLs alone.
    """
    world = honest(made(prompts=40, responses=24))
    law = ideal(world, "identity", 1.0)
    assert law is not None
    one = judged(law, world, np.zeros(world.law.shape, bool), ["intended"])
    plain = wins(law, world, "train", DECODED["plain"], "intended")
    counted = one.win_rates["plain", "intended"]
    assert counted.mean() == pytest.approx(plain.mean(), abs=1e-12)
    assert counted.std() < 0.7 * plain.std()


def test_a_calibrated_reward_cannot_tell_how_much_an_exploit_earns():
    """Once the exploit is on top of every prompt, a larger bonus changes ranks no more."""
    world = made(prompts=16, responses=24)
    laws = {size: _laws(world, size) for size in (100.0, 1000.0)}
    np.testing.assert_allclose(laws[100.0]["identity"], laws[1000.0]["identity"], atol=1e-12)


def test_what_a_raw_policy_does_depends_on_it():
    """The negative control of the one above."""
    world = made(prompts=16, responses=24)
    apart = np.abs(_laws(world, 3.0)["raw"] - _laws(world, 10.0)["raw"]).sum(1).max() / 2
    assert apart > 0.05


def test_the_calibrated_mass_on_an_exploit_is_that_of_the_highest_ranks():
    """1 − F(1 − q): no exploit of mass q gets more, and one on top gets just that.

    Many responses of equal mass stand in for a continuous law: within 2 % of it.
    """
    world = made(prompts=2, responses=400)
    world = _uniform(world)
    bias = Planted(0.05, 1000.0)
    gamed = bias.exploits(world)
    law = ideal(biased(world, bias), "identity", 1.0)
    assert law is not None
    policy = TiltedPolicy(Identity(), beta_for_kl(Identity(), 1.0))
    most = float(1 - policy.cdf(0.95))
    assert (law * gamed).sum(1) == pytest.approx([most, most], rel=0.02)
    weak = Planted(0.05, 0.5)
    less = ideal(biased(world, weak), "identity", 1.0)
    assert less is not None
    assert ((less * gamed).sum(1) < most).all()


def test_biases_favour_what_they_say():
    world = made()
    for bias in (Planted(0.1, 2.0), Keyword(words_near(world, 0.1)[0], 2.0), Length(1.0)):
        added = biased(world, bias).judges["training"] - world.judges["training"]
        gamed = bias.exploits(world)
        assert np.allclose(added, spread(world) * bias.bonus(world))
        assert gamed.any()
        if not isinstance(bias, Length):
            assert (added[gamed] > 0).all()
            assert (added[~gamed] == 0).all()


def test_heavy_errors_differ_from_light_ones_in_their_tails_only():
    """9,600 draws each: quartiles within 5 %, five standard errors; the largest far apart."""
    world = made(prompts=200, responses=48)
    light, heavy = (np.abs(Errors(1.0, tail).bonus(world)) for tail in (False, True))
    assert np.median(heavy) == pytest.approx(np.median(light), rel=0.05)
    assert heavy.max() > 4 * light.max()


def test_the_reference_is_judged_a_half():
    case = Case("honest", honest(made()), None)
    found = judged(
        case.world.law, case.world, np.zeros(case.world.law.shape, bool), ["intended", "gold"]
    )
    for values in found.win_rates.values():
        assert values == pytest.approx(0.5)


def test_a_kl_out_of_reach_has_no_optimum():
    case = Case("honest", honest(made()), None)
    assert ideals(case, ["raw"], 50.0) == {}


def test_a_corrupted_head_orders_fewer_pairs():
    from benchmarks.hacking.heads import disturbed, flipped
    from benchmarks.worlds.heads import Pairs, accuracy, fit_pairs

    rng = np.random.default_rng(0)
    features = rng.standard_normal((600, 2, 5))
    right = features[:, 0, 0] > features[:, 1, 0]
    better = np.where(right[:, None], features[:, 0], features[:, 1])
    worse = np.where(right[:, None], features[:, 1], features[:, 0])
    pairs = Pairs(better, worse, np.arange(600))
    head = fit_pairs(pairs, [1e-3])
    wrong = fit_pairs(flipped(pairs, 0.45, rng), [1e-3])
    noisy = disturbed(head, features, 1.0, rng)
    assert accuracy(head, pairs) > 0.97
    assert accuracy(wrong, pairs) < 0.97
    assert accuracy(noisy, pairs) < 0.95
    turned = fit_pairs(flipped(pairs, 1.0, rng), [1e-3])
    assert accuracy(turned, pairs) < 0.03


def _uniform(world):
    import dataclasses

    return dataclasses.replace(world, law=np.full(world.law.shape, 1 / world.law.shape[1]))


def _laws(world, size):
    wrong = biased(world, Planted(0.05, size))
    return {name: ideal(wrong, name, 0.5) for name in ("raw", "identity")}
