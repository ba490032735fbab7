"""Claim 7: the measured matrix of mismatch beside the planner's."""

import numpy as np
import pytest
from benchmarks.arena.runs import ensure
from benchmarks.mismatch.matrix import measured_matrix, planned_matrix, run_for
from benchmarks.mismatch.run import COLUMNS, ROWS, main
from benchmarks.mismatch.shown import rows
from benchmarks.prediction.cases import SMOKE
from benchmarks.prediction.curve import predicted

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("benchmarks.arena.runs.FOLDER", tmp_path_factory.mktemp("runs"))
        yield


@pytest.fixture(scope="module")
def matrix(runs):
    return main(["--smoke"])["matrices"][0]


def test_training_for_the_procedure_that_decodes_wins(matrix):
    measured = np.array(matrix["measured"])
    one, four = (matrix["rows"].index(name) for name in ("best-of-1", "best-of-4"))
    columns = [matrix["columns"].index(name) for name in ("best-of-1", "best-of-4")]
    assert measured[one, columns[0]] - measured[four, columns[0]] > 0.05
    assert measured[four, columns[1]] - measured[one, columns[1]] > 0.03


def test_the_tilt_of_the_atoms_foresees_every_cell(matrix):
    """Tables trained for two hundred steps end within half a point of their optimum."""
    assert np.abs(matrix["off_atoms"]).max() < 0.005
    assert abs(matrix["largest"]["value"]) > 0.05  # lumps of probability, decoded best-of-16


def test_the_planner_chooses_what_was_measured_best(matrix):
    assert all(choice["planned"] == choice["best"] for choice in matrix["choices"])


def test_rows_that_are_exchanged_are_far_from_the_plan(matrix):
    exchanged = np.array(matrix["atoms"])[::-1]
    assert np.abs(np.array(matrix["measured"]) - exchanged).mean() > 0.03


def test_what_is_planned_is_the_curve_of_the_transform(runs):
    """The planner's matrix, against the tilts of the same Φ by another program."""
    world = SMOKE.world()
    ensure(world, [run_for(BestOfN(4))])
    columns = [BestOfN(1), BestOfN(4), BestOfN(16)]
    found = measured_matrix(world, "train", [BestOfN(4)], columns, 1.0)
    assert found is not None
    transform = optimal_transform(BestOfN(4), kl=1.0)
    curve = [[float(predicted(transform, column, np.array([1.0]))[0]) for column in columns]]
    np.testing.assert_allclose(found.planned, curve, atol=1e-4)
    np.testing.assert_array_equal(found.planned, planned_matrix([BestOfN(4)], columns, 1.0)[0])


def test_rows_are_ranked_by_the_matrix_that_is_shown(matrix):
    planned, names = np.array(matrix["planned"]), matrix["rows"]
    chosen = [names.index(choice["planned"]) for choice in matrix["choices"]]
    np.testing.assert_allclose(planned[chosen, range(len(chosen))], planned.max(0), atol=1e-5)
    assert {choice["among"] for choice in matrix["choices"]} == {len(names)}


def test_rows_without_a_run_are_listed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("benchmarks.arena.runs.FOLDER", tmp_path_factory.mktemp("none"))
        result = main(["--smoke", "--only-kept"])
    assert result["matrices"] == rows(result) == []
    assert [gone["rows"] for gone in result["left_out"]] == [["best-of-1", "best-of-4"]]


def test_what_was_not_trained_is_left_out(runs):
    assert measured_matrix(SMOKE.world(), "train", [BestOfN(16)], [BestOfN(4)], 1.0) is None


def test_every_row_has_its_own_column():
    names = [procedure.name for procedure in COLUMNS]
    assert {procedure.name for procedure in ROWS} <= set(names)
    assert len(set(names)) == len(names)
