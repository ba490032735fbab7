"""The comparison of methods at equal KL, on a made world: optimal Φ ahead, and no further."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.arena.ceiling import ceiling
from benchmarks.arena.comparing import aim
from benchmarks.arena.measuring import at_kl, compared, divergences, read, wins
from benchmarks.arena.planned import FARTHEST, planned, reading_at, run_of, strengths_in
from benchmarks.arena.runs import kept
from benchmarks.arena.store import Store
from benchmarks.frontier import cases, shown
from benchmarks.frontier.run import main
from benchmarks.worlds.made import made

from infalign.evaluation import paired_difference
from infalign.quantile.atoms.decoding import decode_of
from infalign.quantile.atoms.mirror import mirror_ascent
from infalign.quantile.procedures import BestOfN, Identity, WorstOfN
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Identity as Calibrated
from infalign.quantile.win_rate import frontier


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("bench")
        patched.setattr("benchmarks.arena.runs.FOLDER", folder)
        yield main(["--smoke", "--output", str(folder / "smoke.json")])


def test_optimal_is_ahead_at_equal_kl_and_under_the_ceiling(result):
    for case in result["cases"]:
        methods = case["methods"]
        assert methods["identity"]["training"]["ahead"] > 0.01
        assert methods["raw"]["training"]["ahead"] > 0.01
        best = methods["optimal"]["training"]["win"]
        assert best <= case["ceiling"] + 1e-3
        assert best >= methods["optimal"]["aim"] - 0.01  # training arrived


def test_for_the_ordinary_win_rate_identity_is_ahead_of_optimal(result):
    """A negative control: trained for best-of-4, `optimal` is not best at everything."""
    world = cases.SMOKE.world()
    four = BestOfN(4)
    laws = {name: kept(world, run_of(name, four, 1.1)) for name in ("optimal", "identity")}
    won = {name: read(law, world, "train", Identity(), kl=0.9) for name, law in laws.items()}
    assert won["identity"].win_rate.value > won["optimal"].win_rate.value + 0.03


def test_a_run_is_read_near_its_own_kl_only(result):
    world = cases.SMOKE.world()
    assert reading_at(world, "raw", BestOfN(4), "train", 1.0) is not None
    below = 0.9 * 0.55 / FARTHEST  # too far from the nearest run, and none is below
    assert reading_at(world, "raw", BestOfN(4), "train", below) is None
    assert reading_at(world, "raw", BestOfN(4), "train", 5.0) is None


def test_between_two_runs_a_method_wins_what_training_there_would(result):
    world, between = cases.SMOKE.world(), 1.1 / FARTHEST * 0.95
    found = reading_at(world, "raw", BestOfN(4), "train", between)
    assert found.kl == pytest.approx(between, abs=1e-5)
    assert found.win_rate.value == pytest.approx(
        aim(world, "raw", BestOfN(4), between).mean(), abs=3e-3
    )


def test_methods_share_runs_where_they_do_not_know_the_procedure():
    world, both = made(), (BestOfN(4), WorstOfN(4))
    labels = [run.label for run in planned(world, ("identity", "exponential", "optimal"), both)]
    one = len(strengths_in(world, "identity"))
    assert len(labels) == len(set(labels)) == one + 2 * one + 2 * one
    twice = planned(world, ("exponential",), (BestOfN(2), BestOfN(16)))
    assert len(twice) == one


def test_a_world_without_room_gets_no_strong_run():
    small = made(responses=3)
    assert max(strengths_in(small, "identity")) < 2.0
    assert strengths_in(made(responses=48), "identity")[-1] == 2.2


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(4), Identity()])
def test_the_ceiling_is_that_of_mirror_ascent(procedure):
    rng = np.random.default_rng(0)
    law = rng.dirichlet(np.full(12, 2.0), 1)
    rewards = rng.normal(size=law.shape).round(1)  # some are tied
    slow = mirror_ascent(law[0], decode_of(procedure, rewards[0]), rewards[0], kl=0.5)
    assert ceiling(law, rewards, procedure, [0.5])[0] == pytest.approx(slow.best.win_rate, abs=1e-5)


def test_the_ceiling_of_many_responses_is_the_limit():
    rewards = np.random.default_rng(0).normal(size=(2, 400))
    found = ceiling(np.full((2, 400), 1 / 400), rewards, BestOfN(4), [0.5, 1.0])
    limit = frontier(BestOfN(4), [0.5, 1.0])
    assert np.all(found < limit)
    assert np.allclose(found, limit, atol=5e-4)


@pytest.mark.parametrize("procedure", [WorstOfN(4), WorstOfN(16)])
def test_no_exact_optimum_exceeds_the_ceiling_where_w_is_not_concave(procedure):
    world = made(prompts=24, responses=48)
    most = ceiling(world.law, world.judges["training"], procedure, [0.5, 1.0])
    for kl, above in zip([0.5, 1.0], most, strict=True):
        assert aim(world, "optimal", procedure, kl).mean() < above + 1e-3


def test_no_law_of_the_same_kl_exceeds_the_ceiling():
    rng = np.random.default_rng(1)
    world = made()
    most = ceiling(world.law, world.judges["training"], BestOfN(4), [0.5])[0]
    for _ in range(20):
        tilted = world.law * np.exp(3 * world.judges["training"] + rng.normal(size=world.law.shape))
        law = at_kl(tilted / tilted.sum(1, keepdims=True), world.law, 0.5)
        assert divergences(law, world.law).mean() == pytest.approx(0.5, abs=1e-6)
        assert wins(law, world, "train", BestOfN(4), "training").mean() < most


def test_rows_say_what_was_measured_and_withhold_what_was_not(result):
    renamed = json.loads(json.dumps(result).replace('"made"', '"openings"'))
    lines = shown.rows(renamed)
    case = shown.found(renamed, "openings", "best-of-4", "train", 1.0)
    assert f"{100 * case['methods']['raw']['training']['ahead']:+.1f}" in lines[0].number
    for other in renamed["cases"]:  # had raw reward been ahead, the row would say so
        for judge in ("training", "gold"):
            kept = other["methods"]["raw"][judge]
            kept["ahead"], kept["ahead_se"] = -0.2, 0.01
    assert [line.holds for line in shown.rows(renamed)] == [False, False, False]
    assert "the best of 1," in shown.rows(renamed)[-1].instead  # counted, not known


def test_one_setting_below_zero_is_a_no_and_one_that_is_not_seen_withholds_the_yes():
    assert shown.verdict([(0.1, 0.2), (0.01, 0.3)]) is True
    assert shown.verdict([(0.1, 0.2), (-0.1, 0.3)]) is None
    assert shown.verdict([(0.1, 0.2), (-0.2, -0.1)]) is False


def test_the_spread_over_seeds_stands_beside_the_error(result):
    renamed = json.loads(json.dumps(result).replace('"made"', '"openings"'))
    case = shown.found(renamed, "openings", "best-of-4", "train", 1.0)
    other = json.loads(json.dumps(case))
    other["methods"]["raw"]["training"]["ahead"] = 0.5
    renamed["seeds"] = [dict(case, seed=0), dict(other, seed=1)]
    assert "to +50.0]" in shown.rows(renamed)[0].number
    assert any("| 1 | RL on the raw reward |" in line for line in shown.seeds_table(renamed))


def test_figures_and_tables_are_made_from_the_result_alone(result, tmp_path):
    renamed = json.loads(json.dumps(result).replace('"made"', '"openings"'))
    held_out = [dict(point, split="held-out") for point in renamed["points"]]
    renamed["points"] += held_out
    shown.draw(renamed, tmp_path)
    assert {"front.png", "methods.png", "by_n.png", "gold.png", "tables.md"} == {
        path.name for path in tmp_path.iterdir()
    }
    assert "RL on the raw reward" in (tmp_path / "tables.md").read_text()


def test_errors_at_equal_kl_are_those_of_drawing_other_prompts():
    """Draws of prompts from a big made world: the interval covers what all its prompts have.

    Counting a prompt by its win rate, as if the KL had not been solved on these very prompts, does
    not: raw reward spends most of its KL on prompts of a wide scale.
    """
    big, kl, four = made(prompts=3000), 0.5, BestOfN(4)
    raw = big.judges["training"]
    calibrated = Store(big.law, raw).training_rewards(Calibrated())
    laws = [
        tilt_atoms(big.law, phi, beta_for_atoms_kl(big.law, phi, 1.0)) for phi in (raw, calibrated)
    ]

    def some(rows):
        drawn = dataclasses.replace(
            big,
            prompts=tuple(big.prompts[row] for row in rows),
            trained=len(rows),
            law=big.law[rows],
            judges={"training": raw[rows]},
        )
        return [read(law[rows], drawn, "train", four, kl=kl) for law in laws]

    def ahead(readings):
        theirs, ours = readings
        return compared(ours, theirs), paired_difference(ours.per_prompt, theirs.per_prompt)

    whole = some(np.arange(3000))
    truth = whole[1].win_rate.value - whole[0].win_rate.value
    rng = np.random.default_rng(0)
    found = [ahead(some(rng.choice(3000, 60))) for _ in range(300)]
    spread = np.std([counted.value for counted, _ in found])
    for which, right in ((0, True), (1, False)):
        some_errors = [pair[which] for pair in found]
        covered = np.mean([error.low < truth < error.high for error in some_errors])
        ratio = np.mean([error.se for error in some_errors]) / spread
        assert bool(0.92 < covered < 0.98) is right, covered
        assert bool(0.9 < ratio < 1.1) is right, ratio
