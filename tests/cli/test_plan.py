import json

import pytest

from infalign.planner import plan
from infalign.quantile.procedures import BestOfN, WorstOfN


def test_the_table_holds_the_plan(infalign_command):
    code, out, err = infalign_command("plan", "--n", "4", "--kl", "1")
    assert (code, err) == (0, "")
    for row in plan(BestOfN(4), kl=1.0):
        line = next(line for line in out.splitlines() if f" {row.transform} " in line)
        assert f"{row.standard_win_rate:.3f}" in line
        assert f"{row.decoded_win_rate:.3f}" in line
        assert f"{100 * row.fraction_of_limit:.1f} %" in line


def test_json_holds_the_same_for_several_kls(infalign_command):
    code, out, _ = infalign_command(
        "plan", "--procedure", "worst-of-2", "--kl", "0.5", "--kl", "2", "--json"
    )
    tables = json.loads(out)
    assert code == 0
    assert [(table["candidates"], table["kl"]) for table in tables] == [(2, 0.5), (2, 2.0)]
    last = plan(WorstOfN(2), kl=2.0)[-1]
    assert tables[1]["transforms"][-1]["decoded_win_rate"] == pytest.approx(last.decoded_win_rate)


@pytest.mark.parametrize(
    ("given", "name"),
    [("log", "log"), ("exp(-5)", "exp(-5)"), ("exponential:2.5", "exp(2.5)"), ("exp", "exp(10)")],
)
def test_transforms_are_chosen_by_name(given, name, infalign_command):
    _, out, _ = infalign_command("plan", "--transform", given, "--json")
    assert [row["transform"] for row in json.loads(out)[0]["transforms"]] == [name, "optimal"]


def test_procedure_and_kl_come_from_an_experiment(infalign_command, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("procedure: {kind: best_of_n, n: 2}\ntraining: {kind: online, kl: 0.7}")
    (table,) = json.loads(infalign_command("plan", str(path), "--json")[1])
    assert (table["procedure"], table["kl"]) == (BestOfN(2).name, 0.7)


def test_the_kl_follows_from_an_experiments_beta(infalign_command, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("training: {kind: online, beta: 0.0830496663}")
    (table,) = json.loads(infalign_command("plan", str(path), "--json")[1])
    assert table["kl"] == pytest.approx(1.0, abs=1e-6)


def test_an_order_statistic_takes_probabilities(infalign_command):
    arguments = ("--procedure", "order_statistic", "--probabilities", "0,0,1", "--json")
    (table,) = json.loads(infalign_command("plan", *arguments)[1])
    best = plan(BestOfN(3), kl=1.0)[-1]
    assert table["transforms"][-1]["decoded_win_rate"] == pytest.approx(best.decoded_win_rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--procedure", "best_off_n"], "Did you mean 'best_of_n'?"),
        (["--procedure", "best_of_4", "--n", "8"], "leave out --n 8"),
        (["--transform", "exponentail"], "Did you mean 'exponential'?"),
        (["--transform", "exp(0)"], "0"),
        (["--kl", "0"], "--kl 0: a KL between 0 and 8 nats"),
        (["--kl", "nan"], "--kl nan"),
        (["--kl", "9"], "--kl 9"),
        (["--probabilities", "a,b", "--procedure", "order_statistic"], "separated by commas"),
    ],
)
def test_bad_input_is_refused(arguments, message, infalign_command):
    code, out, err = infalign_command("plan", *arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "right"), [(["pln"], "'plan'"), (["plan", "--transfrom", "log"], "--transform")]
)
def test_a_misspelt_word_is_answered_with_the_nearest(arguments, right, infalign_command):
    code, out, err = infalign_command(*arguments)
    assert (code, out) == (2, "")
    assert right in err
