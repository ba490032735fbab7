"""Records refuse what could not be reported, and survive the way to disk and back unchanged."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infalign.report import (
    Act,
    CalibrationCheck,
    Checkpoint,
    Curve,
    Estimate,
    Report,
    TrainingCurve,
    load_report,
    write_report,
)


def test_the_record_comes_back_from_json_equal(example: Report, folder: Path):
    assert load_report(folder / "report.json") == example


def test_json_is_standard_and_says_what_it_is(folder: Path):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    assert (record["format"], record["version"]) == ("infalign report", 1)


def test_text_comes_back_as_it_was(tmp_path: Path):
    report = Report("τ <b> \x00 \u202e 😀 \\ud800", (Act("\r\n\t"),))
    write_report(report, tmp_path)
    assert load_report(tmp_path / "report.json") == report


def test_half_a_surrogate_pair_becomes_the_replacement_character():
    assert Act("a\ud800b").title == "a\ufffdb"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r | {"version": 2}, "'version': 2.*Write it again"),
        (lambda r: [r], "load_report reads"),
        (lambda r: r | {"surprise": 1}, "surprise"),
        (lambda r: r | {"acts": [{"title": 3}]}, r"acts\.0\.title"),
        (lambda r: {k: v for k, v in r.items() if k != "title"}, "title"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage, message: str):
    write_report(Report("t", (Act("a"),)), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        load_report(path)


def test_a_truncated_file_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_text('{"format": "infal')
    with pytest.raises(ValueError, match=r"report\.json"):
        load_report(path)


def test_arrays_become_plain_tuples():
    curve = Curve("log", np.array([0.0, 1.0]), [np.float32(0.5), 0.75])
    assert curve == Curve("log", (0.0, 1.0), (0.5, 0.75))
    assert type(curve.win_rates[0]) is float
    assert hash(curve) == hash(Curve("log", (0.0, 1.0), (0.5, 0.75)))
    assert type(Estimate(np.float64(1)).value) is float


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float64("nan")])
def test_numbers_that_json_lacks_are_refused_by_field(bad: float):
    with pytest.raises(ValueError, match=r"Estimate\.se is .*Pass None"):
        Estimate(0.5, bad)
    with pytest.raises(ValueError, match=r"Curve\.win_rates\[1\]"):
        Curve("log", (0, 1), (0.5, bad))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve("log", (0, 1), (0.5,)), "win_rates must have length 2"),
        (lambda: Curve("log", (1, 0), (0.5, 0.6)), "must increase"),
        (lambda: Estimate(0.5, -0.1), "at least 0"),
        (lambda: Estimate(0.5, 0.1, 0), "at least 1"),
        (lambda: TrainingCurve("p", (1, 2), reward=(1,)), "reward must have length 2"),
        (lambda: CalibrationCheck.from_rewards(np.ones((2, 3)), np.ones((3, 2))), "P × K"),
    ],
)
def test_what_does_not_fit_together_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_intervals_are_students_t_over_prompts():
    # t quantile at 97.5 % with 3 degrees of freedom is 3.182446; normal 1.959964.
    assert Estimate(0.0, 1.0, 4).interval() == pytest.approx((-3.182446, 3.182446), abs=1e-6)
    assert Estimate(0.0, 1.0).interval() == pytest.approx((-1.959964, 1.959964), abs=1e-6)
    assert Estimate(0.5).interval() is None
    assert Estimate(0.5, 0.1, 1).interval() is None


def test_calibration_check_measures_the_distance_from_uniform():
    quantiles = np.tile((np.arange(8) + 0.5) / 8, (3, 1))
    rewards = quantiles + np.array([[0.0], [10.0], [20.0]])
    check = CalibrationCheck.from_rewards(rewards, quantiles)
    assert check.ks_after == pytest.approx(1 / 16)
    assert check.prompt_ks_after == pytest.approx(1 / 16)
    # On one global scale the lowest prompt lies wholly in the lowest fifth.
    assert check.prompt_ks_before > 0.5
    assert [round(p.quantiles[1], 6) for p in check.spread] == [0.5] * 3
    low, mean, high = check.after[20]
    assert (low, mean, high) == (0.5, 0.5, 0.5)


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Checkpoint(Estimate(0), Estimate(0.5)).step = 3  # pyright: ignore


def test_without_the_extra_the_json_is_kept_and_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = importlib.util.find_spec

    def lacking(name: str, package: str | None = None):
        return None if name == "matplotlib" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    with pytest.raises(ImportError, match=r"matplotlib.*pip install 'infalign\[report\]'"):
        write_report(Report("kept", ()), tmp_path)
    assert load_report(tmp_path / "report.json").title == "kept"
    assert not (tmp_path / "report.html").exists()


def test_importing_the_records_loads_neither_matplotlib_nor_torch():
    code = (
        "import infalign.report, sys; "
        "print({'matplotlib', 'jinja2', 'torch'} & set(sys.modules) or 'light')"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "light", printed.stderr
