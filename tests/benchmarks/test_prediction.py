"""Claim 2: predictions of runs, and what the difference is made of."""

import dataclasses

import numpy as np
import pytest
from benchmarks.arena.measuring import divergences
from benchmarks.arena.store import Store
from benchmarks.prediction import shown
from benchmarks.prediction.cases import fine
from benchmarks.prediction.curve import predicted
from benchmarks.prediction.explained import explain, planned_ahead
from benchmarks.prediction.recording import COLUMNS, records
from benchmarks.prediction.run import main
from benchmarks.prediction.summary import parts_of, summarised

from infalign.quantile.finite import finite_win_rate
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN, WorstOfN
from infalign.quantile.tilting import beta_for_atoms_kl, tilt_atoms
from infalign.quantile.transforms import Exponential, Identity
from infalign.quantile.win_rate import frontier

FOUR = BestOfN(4)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The claim on a made world, its runs made here."""
    with pytest.MonkeyPatch.context() as patched:
        folder = tmp_path_factory.mktemp("runs")
        patched.setattr("benchmarks.arena.runs.FOLDER", folder)
        return main(["--smoke"])


def tilted(world, transform, kl):
    """What converged training ends at, without training."""
    phi = world.store(0).training_rewards(transform)
    return tilt_atoms(world.law, phi, beta_for_atoms_kl(world.law, phi, kl))


def run_on(transform, kl=1.0):
    """A run that was not made: its law is given."""
    from benchmarks.arena.runs import Run
    from benchmarks.methods import Transformed

    return Run("given", Transformed(transform, kl))


@pytest.mark.parametrize(
    ("transform", "procedure"),
    [
        (Exponential(-10.0), WorstOfN(16)),
        (Identity(), BestOfN(2)),
        (optimal_transform(BestOfN(16), kl=0.5), BestOfN(16)),
    ],
)
def test_the_table_is_the_frontier(transform, procedure):
    kls = np.array([0.003, 0.1, 0.5, 1.1, 1.9])
    np.testing.assert_allclose(
        predicted(transform, procedure, kls), frontier(procedure, kls, transform), atol=1e-5
    )


def test_the_smoke_run_is_explained_and_the_curve_alone_is_not_enough(smoke):
    overall = smoke["overall"]
    assert overall["runs"] == 4
    assert overall["last"]["inside"] == 1.0
    assert overall["last"]["most"] < 0.005  # trained tables end near their optimum
    assert overall["curve"]["most"] > 0.02  # sixteen rollouts cost more than that


def test_the_paired_interval_decides_not_half_a_point(smoke):
    """Close in practice, and yet refused: each case is moved by a third of a point."""
    place = {name: smoke["columns"].index(f"atoms_{name}") for name in ("off", "se", "covers")}
    moved = [row.copy() for row in smoke["rows"] if row[smoke["columns"].index("k")] is None]
    assert moved
    for row in moved:
        row[place["off"]], row[place["se"]], row[place["covers"]] = 0.003, 0.0005, False
    row = shown.rows(smoke | {"rows": moved})[0]
    assert row.holds is False
    assert row.number.startswith("0 % of cases with responses and K known")
    assert "100 % within half a point" in row.number
    assert shown.rows(smoke)[0].holds is (smoke["overall"]["last"]["covered"] >= 0.9)


def test_cases_without_a_run_are_listed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("benchmarks.arena.runs.FOLDER", tmp_path_factory.mktemp("none"))
        result = main(["--smoke", "--only-kept"])
    assert result["rows"] == shown.rows(result) == []
    assert [(gone["k"], gone["missing"], gone["asked"]) for gone in result["left_out"]] == [
        (None, 2, 2),
        (16, 2, 2),
    ]


def test_parts_add_up_to_the_difference(smoke):
    for row in records(smoke):
        total = row["win_rate"] - row["curve"]
        assert sum(parts_of(row).values()) == pytest.approx(total, abs=1e-9)
        assert row["curve_off"] == pytest.approx(total, abs=2e-5)


def test_rollouts_explain_what_atoms_do_not(smoke):
    rows = [row for row in records(smoke) if row["k"] == 16 and row["method"] == "optimal"]
    assert len(rows) == 1
    assert abs(rows[0]["atoms_off"]) > 0.01 > 10 * abs(rows[0]["rollouts_off"])


def test_fine_atoms_are_as_good_as_continuous_and_coarse_ones_are_not():
    many, few = fine(12, 256), dataclasses.replace(fine(12, 8), name="coarse")
    off = {}
    for world in (many, few):
        said = explain(world, run_on(Identity()), "train", FOUR, tilted(world, Identity(), 1.0))
        off[world.name] = said.deviation("curve")
        assert said.deviation("atoms").value == pytest.approx(0, abs=1e-9)
    assert abs(off["fine"].value) < 0.003 < 0.03 < -off["coarse"].value


def test_a_wrong_prediction_is_refused():
    """The curve of another transform, and a law that was trained for something else."""
    world = fine(12, 256)
    law = tilted(world, Identity(), 1.0)
    right = explain(world, run_on(Identity()), "train", FOUR, law).deviation("curve")
    wrong = explain(world, run_on(Exponential(10.0)), "train", FOUR, law).deviation("atoms")
    assert abs(right.value) < 0.003
    assert wrong.high < -0.03


def test_the_error_of_a_difference_takes_off_what_kl_explains():
    """Prompts that differ in KL alone lie on one curve: they say nothing against it."""
    world = fine(40, 64)
    phi = Store(world.law, world.judges["training"]).training_rewards(Identity())
    betas = np.geomspace(0.2, 0.5, 40)
    law = np.concatenate(
        [
            tilt_atoms(world.law[row : row + 1], phi[row : row + 1], beta)
            for row, beta in enumerate(betas)
        ]
    )
    said = explain(world, run_on(Identity()), "train", FOUR, law)
    plain = np.std(said.wins, ddof=1) / np.sqrt(40)
    assert np.std(divergences(law, world.law)) > 0.1
    assert said.deviation("curve").se < plain / 3


def test_the_planner_foresees_what_rollouts_cost():
    """One store per prompt, 64 prompts: the mean tilt is within four standard errors (p < 1e-4)."""
    world = dataclasses.replace(fine(64, 256), k=16)
    transform = optimal_transform(FOUR, kl=0.55)
    law = tilted(world, transform, 0.6)
    said = explain(world, run_on(transform), "train", FOUR, law)
    off = said.deviation("planner")
    assert abs(off.value) < 4 * off.se
    assert said.deviation("curve").value < -4 * said.deviation("curve").se


def test_equal_atoms_without_ties_are_known_to_the_planner():
    world = dataclasses.replace(fine(6, 24), k=16)
    world = dataclasses.replace(world, law=np.full(world.law.shape, 1 / 24))
    run = run_on(Identity())
    told = explain(world, run, "train", FOUR, tilted(world, Identity(), 0.6))
    aware = told.predictions["planner"].value
    assert aware < finite_win_rate(Identity(), FOUR, 16, told.kl) - 0.005
    assert planned_ahead(world, run.method, FOUR, told.predictions["atoms"], told.kl).value == aware


def test_no_runs_make_no_summary():
    assert summarised([]) == {"groups": [], "overall": None}
    assert len(set(COLUMNS)) == len(COLUMNS)
