"""The questions of `infalign plan` beside the table of transforms."""

import importlib
import json

import numpy as np
import pytest

from infalign import BestOfN, WorstOfN, optimal_transform
from infalign.planner import (
    cheapest,
    enough_rollouts,
    gold_by_n,
    least_kl,
    mismatch,
    power,
    robust,
    rollouts,
)


def test_the_least_kl_for_each_n(infalign_command):
    code, out, err = infalign_command("plan", "--target-win-rate", "0.9", "--ns", "1,4,16")
    assert (code, err) == (0, "")
    assert "0: no training needed" in out
    assert "decoded by identity, one opponent for all rows" in out
    arguments = ("plan", "--target-win-rate", "0.9", "--ns", "1,4,16", "--kl-price", "3", "--json")
    data = json.loads(infalign_command(*arguments)[1])
    ways = cheapest(0.9, [1, 4, 16], kl_price=3)
    assert [way["kl"] for way in data["ways"]] == pytest.approx([way.kl for way in ways])
    assert [way["is_cheapest"] for way in data["ways"]] == [way.is_cheapest for way in ways]
    assert data["ways"][1]["kl_decoded_alike"] == pytest.approx(least_kl(0.9, BestOfN(4)))
    assert data["ways"][2]["beta"] is None


def test_another_reference_may_be_the_opponent(infalign_command):
    arguments = ("--target-win-rate", "0.7", "--n", "4", "--reference", "best_of_4", "--json")
    data = json.loads(infalign_command("plan", *arguments)[1])
    assert data["ways"][0]["kl"] == pytest.approx(least_kl(0.7, BestOfN(4)))


def test_the_mismatch_and_its_robust_row(infalign_command, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "map.png"
    arguments = ("plan", "--mismatch", "--ns", "1,4", "--kl", "0.5")
    code, out, err = infalign_command(*arguments, "--heatmap", str(path))
    assert (code, err) == (0, "")
    assert path.exists()
    procedures = [BestOfN(1), BestOfN(4)]
    best = robust(procedures, 0.5)
    rows = mismatch(procedures, 0.5, transforms=[best.transform])
    for name, wins in zip(rows.rows, rows.win_rates, strict=True):
        line = next(line for line in out.splitlines() if f" {name} " in line and "│" in line)
        assert all(f"{win:.3f}" in line for win in wins)
    assert "certified to" in out
    data = json.loads(infalign_command(*arguments, "--criterion", "win_rate", "--json")[1])
    assert data["trained_for"] == ["best-of-1", "best-of-4", "robust"]
    assert data["robust"]["gap"] <= 1e-6
    assert data["robust"]["weights"]["best-of-1"] == pytest.approx(1, abs=1e-6)


def test_several_procedures_by_name(infalign_command):
    arguments = ("-p", "best_of_2", "-p", "best_of_poisson(3)", "--kl", "0.3", "--json")
    data = json.loads(infalign_command("plan", "--mismatch", *arguments)[1])
    assert data["decoded_with"] == ["best-of-2", "best-of-poisson(3)"]


def test_what_rollouts_cost_and_how_many_are_enough(infalign_command):
    arguments = ("plan", "--rollouts", "16,64", "--loss", "2", "--kl", "0.5")
    out = infalign_command(*arguments)[1]
    enough = enough_rollouts(BestOfN(4), 0.5, 0.02)
    assert f"K = {enough}." in out
    data = json.loads(infalign_command(*arguments, "--json")[1])
    rows = rollouts(BestOfN(4), 0.5, [16, 64])
    assert [row["win_rate"] for row in data["rollouts"]] == [row.win_rate for row in rows]
    assert f"{enough}" in infalign_command("plan", "--loss", "2", "--kl", "0.5")[1]


def test_prompts_to_see_a_difference(infalign_command):
    arguments = ("--difference", "3", "--samples", "4,16", "--prompts", "100", "--prompt-sd", "5")
    code, out, _ = infalign_command("plan", "--power", *arguments)
    assert code == 0
    assert "100 prompts show" in out
    data = json.loads(infalign_command("plan", "--power", *arguments, "--json")[1])
    rows = power(BestOfN(4), 0.03, [4, 16], prompts=100, prompt_sd=0.05)
    assert [row["prompts_paired"] for row in data["rows"]] == [row.prompts_paired for row in rows]
    assert data["rows"][0]["detectable"] == rows[0].detectable


def test_a_gold_column_and_where_more_stops_helping(infalign_command):
    out = infalign_command("plan", "--agreement", "0.6")[1]
    assert "gold judge" in out
    assert "optimal for gold" in out
    assert "optimal for gold" not in infalign_command("plan", "--agreement", "0")[1]
    out = infalign_command("plan", "--gold", "--rho", "0.9", "--ns", "1,8,64,128")[1]
    assert "Beyond N = 8 the next step gains less than a point." in out
    data = json.loads(
        infalign_command("plan", "--gold", "--rho", "0.9", "--ns", "1,8", "--json")[1]
    )
    assert [row["candidates"] for row in data["by_n"]["rows"]] == [1, 8]
    assert data["by_n"]["rows"][0]["gain"] is None


@pytest.fixture
def scores(tmp_path):
    rng = np.random.default_rng(0)
    proxy = rng.normal(size=(60, 16))
    gold = 0.6 * proxy + 0.8 * rng.normal(size=proxy.shape) + rng.normal(size=(60, 1))
    path = tmp_path / "scores.csv"
    lines = ["prompt_id,proxy,gold"]
    lines += [f"p{i},{proxy[i, j]},{gold[i, j]}" for j in range(16) for i in range(60)]
    path.write_text("\n".join(lines))
    return path


def test_the_agreement_is_estimated_from_stored_scores(infalign_command, scores):
    """A copula of r = 0.6 has ρ = (6/π)·asin(0.3) = 0.582; the estimate's error is 0.02."""
    code, out, err = infalign_command("plan", "--scores", str(scores), "--json")
    assert code == 0
    assert "60 prompts" in err
    assert json.loads(out)[0]["agreement"] == pytest.approx(0.582, abs=0.08)


def test_the_page_is_written_where_asked(infalign_command, tmp_path):
    path = tmp_path / "plan.html"
    code, out, _ = infalign_command("plan", "--html", str(path), "--n", "8")
    assert (code, out.strip()) == (0, str(path))
    assert "<html" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n 0", "--n 0: the number of responses per answer is at least 1"),
        ("--procedure best_of_0", "integer ≥ 1"),
        ("--kl -1", "--kl -1: a KL between 0 and 8"),
        ("--agreement 1.5", "agreement is 1.5"),
        ("--rho -2 --gold", "agreement is -2"),
        ("--gold", "--gold needs how far the two rewards agree"),
        ("-p rewind_and_repeat(1.5,8)", "threshold is 1.5"),
        ("-p order_statistic --probabilities 0.5,0.2", "sum to 1"),
        ("-p best_of_poison(4)", "Did you mean 'best_of_poisson'?"),
        ("-p best_of_2 -p best_of_4", "--mismatch or --target-win-rate"),
        ("--reference bestof4", "Known: identity"),
        ("--target-win-rate 1.5", "strictly between 0 and 1"),
        ("--target-win-rate 0.999999 --ns 1", "out of reach"),
        ("--target-win-rate 0.9 --ns 0,4", "0 is too small"),
        ("--target-win-rate 0.9 --ns a", "integers separated by commas"),
        ("--target-win-rate 0.9 --kl-price 0", "kl_price is 0"),
        ("--target-win-rate 0.9 --kl 1", "--kl does not go with --target-win-rate"),
        ("--mismatch --ns 4", "1 procedure"),
        ("--mismatch --ns 4,4", "1 procedure(s) came"),
        ("--mismatch --n 4", "give them as --ns 1,2,4"),
        ("--mismatch --kl 1 --kl 2", "this question takes one"),
        ("--mismatch --criterion regret", "criterion is 'regret'"),
        ("--mismatch --heatmap map.gif", ".png, .svg"),
        ("--mismatch --power", "different questions"),
        ("--heatmap map.png", "--heatmap does not go with the table of transforms"),
        ("--rollouts 1", "1 is too small"),
        ("--rollouts 16 --loss 0", "--loss 0: points"),
        ("--rollouts 16 --agreement 0", "agreement is 0.0; a reward that does not rank"),
        ("--rollouts 16 --agreement 2", "agreement is 2"),
        ("--rollouts 16 --criterion loss", "--criterion does not go with --rollouts"),
        ("--power --difference 0", "--difference 0: points"),
        ("--power --difference nan", "--difference nan"),
        ("--power --difference 60", "smaller difference or a larger KL"),
        ("--power --samples 2", "2 samples per prompt came for 4 candidates"),
        ("--power --prompts 1", "prompts is 1"),
        ("--power --chance 1", "power is 1"),
        ("--power --confidence 2", "confidence is 2"),
        ("--power --prompt-sd -1", "--prompt-sd -1: points from 0 to 50"),
        ("--power --prompt-sd 60", "--prompt-sd 60: points from 0 to 50"),
        ("--power --difference 0.001", "at least 0.01 points"),
        ("--rollouts 100000", "at most 65,536"),
        ("--html plan.html --json", "--html and --json both came"),
        ("--mismatch --ns=", "integers separated by commas"),
        ("--target-win-rate 0.9 --ns=", "integers separated by commas"),
        ("-t exp(--5)", "as in exp(5)"),
        ("-t exp(5", "as in exp(5)"),
        ("-t exp()", "as in exp(5)"),
        ("-p best_of_poisson(4", "settings in brackets"),
        ("-p rewind_and_repeat(-0.1,8)", "threshold is -0.1"),
        ("-p order_statistic --n 4", "Known: probabilities."),
        ("-p soft_best_of_n(0.1)", "n in the name: soft_best_of_4("),
        ("--reference best_of_n", "--reference best_of_4, or by --n"),
        ("--scores nowhere.csv", "no such file"),
        ("--score-columns a,b", "give that too"),
        ("--scores x.csv --agreement 0.5", "Give one"),
        ("--html nowhere/plan.html", "make it first"),
        ("--html plan.html --power", "Leave the other out"),
    ],
)
def test_bad_input_is_refused_in_words(arguments, message, infalign_command):
    code, out, err = infalign_command("plan", *arguments.split())
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("soft-best-of-4(1e-2)", "soft-best-of-4(λ=0.01)"),
        ("rewind-and-repeat(9e-1, 8)", "rewind(0.9, 8)"),
    ],
)
def test_a_minus_in_brackets_is_a_minus(given, name, infalign_command):
    arguments = ("plan", "--rollouts", "8", "-t", "log", "-p", given, "--json")
    assert json.loads(infalign_command(*arguments)[1])["procedure"] == name


def test_what_comes_twice_is_answered_once(infalign_command):
    arguments = ("--kl", "1", "--kl", "1", "-t", "log", "-t", "log", "-t", "exp(5)", "-t", "exp:5")
    (table,) = json.loads(infalign_command("plan", *arguments, "--json")[1])
    assert [row["transform"] for row in table["transforms"]] == ["log", "exp(5)", "optimal"]
    arguments = ("plan", "--rollouts", "16,8,16", "-t", "log", "--json")
    assert [row["k"] for row in json.loads(infalign_command(*arguments)[1])["rollouts"]] == [16, 8]


def test_a_saturated_win_rate_has_no_error_to_show(infalign_command):
    arguments = ("plan", "--power", "--n", "64", "--samples", "64", "--kl", "8")
    assert "–: saturated" in infalign_command(*arguments)[1]
    (row,) = json.loads(infalign_command(*arguments, "--json")[1])["rows"]
    assert row["standard_error"] is None


@pytest.fixture
def unsolved(monkeypatch):
    """No optimum of best-of-4 is found."""
    solve = optimal_transform

    def stubborn(procedure, **asked):
        if procedure == BestOfN(4):
            raise ArithmeticError("No law for best-of-4 was found. Ask for a smaller KL.")
        return solve(procedure, **asked)

    for module in ("gold", "limit", "mismatch", "robust", "target"):
        found = importlib.import_module(f"infalign.planner.{module}")
        monkeypatch.setattr(found, "optimal_transform", stubborn)


@pytest.mark.parametrize(
    ("arguments", "solved"),
    [
        ("--n 4", "0.877"),
        ("--target-win-rate 0.9 --ns 1,4", "1.303"),
        ("--mismatch --ns 1,2,4", "0.865"),
        ("--gold --rho 0.5 --ns 1,4", "0.865"),
    ],
)
@pytest.mark.usefixtures("unsolved")
def test_what_is_not_solved_leaves_the_rest(arguments, solved, infalign_command):
    code, out, err = infalign_command("plan", *arguments.split())
    assert (code, err) == (0, "")
    assert "No law for best-of-4 was found." in " ".join(out.split())
    assert "smaller KL" not in out
    assert solved in out
    code, out, _ = infalign_command("plan", *arguments.split(), "--json")
    assert code == 0
    assert "null" in out


def test_gold_is_of_the_family_asked_for(infalign_command):
    arguments = ("plan", "--gold", "--rho", "0.6", "-p", "worst_of_2", "--ns", "1,4", "--kl", "0.5")
    out = infalign_command(*arguments)[1]
    assert "worst-of-N at KL 0.5" in out
    assert "From N = 1 on gold falls" in out
    assert "never falls" not in out
    rows = json.loads(infalign_command(*arguments, "--json")[1])["by_n"]["rows"]
    expected = gold_by_n(0.6, 0.5, [1, 4], family=WorstOfN)
    assert [row["gold_win_rate"] for row in rows] == [row.gold_win_rate for row in expected]


def test_gold_of_the_opposite_opinion_falls(infalign_command):
    arguments = ("plan", "--gold", "--ns", "1,4", "--kl", "0.5", "--rho")
    out = infalign_command(*arguments, "-0.5")[1]
    assert "From N = 1 on gold falls" in out
    assert "From KL = 0 on gold falls" in out
    assert "never falls" not in out
    assert "gains less than a point" not in out
    assert "never falls" not in infalign_command(*arguments, "0")[1]
    assert "never falls" in infalign_command(*arguments, "0.5")[1]


def test_the_reference_may_take_the_n(infalign_command):
    arguments = ("plan", "--reference", "best_of_n", "--n", "8", "-t", "log", "--json")
    (table,) = json.loads(infalign_command(*arguments)[1])
    assert table["reference_procedure"] == "best-of-8"


def test_a_folder_that_holds_no_scores(infalign_command, tmp_path, scores):
    assert "is a store of rollouts" in infalign_command("plan", "--scores", str(tmp_path))[2]
    code, _, err = infalign_command(
        "plan", "--scores", str(scores), "--score-columns", "proxy,golden"
    )
    assert code == 2
    assert "prompt_id, proxy, gold" in err
    scores.write_text("prompt_id,proxy,gold\np1,1,2\np2,2,1\n")
    assert "at least 2 are needed" in infalign_command("plan", "--scores", str(scores))[2]


def test_an_experiment_has_one_procedure(infalign_command, experiment_file):
    code, _, err = infalign_command("plan", str(experiment_file), "--mismatch")
    assert code == 2
    assert "Leave the file out" in err
