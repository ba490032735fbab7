"""Equal rewards and unlike judges in the questions of `infalign plan`."""

import json

import pytest

from infalign import BestOfN
from infalign.planner import cheapest, enough_rollouts, plan, rollouts
from infalign.quantile.procedures import RewindAndRepeat
from infalign.quantile.ties import Ties

PASS = Ties.pass_fail(0.3)


def test_a_pass_rate_is_a_reward_of_two_values(infalign_command):
    code, out, err = infalign_command("plan", "--pass-rate", "0.3", "--kl", "0.5")
    assert (code, err) == (0, "")
    assert "Tied quantiles, with one reward each: 0 to 0.7, 0.7 to 1" in out
    (table,) = json.loads(
        infalign_command("plan", "--pass-rate", "0.3", "--kl", "0.5", "--json")[1]
    )
    rows = plan(BestOfN(4), 0.5, ties=PASS)
    assert [row["decoded_win_rate"] for row in table["transforms"]] == pytest.approx(
        [row.decoded_win_rate for row in rows]
    )
    assert table["ties"] == [[0, 0.7], [0.7, 1]]


def test_ties_may_come_in_any_order(infalign_command):
    arguments = ("--tie", "0.9:1", "--tie", "0:0.4", "--kl", "0.5", "--json")
    (table,) = json.loads(infalign_command("plan", *arguments)[1])
    last = plan(BestOfN(4), 0.5, ties=Ties(((0, 0.4), (0.9, 1))))[-1]
    assert table["transforms"][-1]["decoded_win_rate"] == pytest.approx(last.decoded_win_rate)


def test_a_target_by_a_tied_reward(infalign_command):
    arguments = ("plan", "--target-win-rate", "0.8", "--ns", "1,4", "--pass-rate", "0.3")
    assert "Tied quantiles" in infalign_command(*arguments)[1]
    data = json.loads(infalign_command(*arguments, "--json")[1])
    ways = cheapest(0.8, [1, 4], ties=PASS)
    assert [way["kl"] for way in data["ways"]] == pytest.approx([way.kl for way in ways])
    assert data["ways"][1]["kl_decoded_alike"] is None


def test_rollouts_by_ties_and_by_a_gold_judge(infalign_command):
    arguments = ("plan", "--rollouts", "16", "--loss", "1", "--kl", "0.5")
    data = json.loads(infalign_command(*arguments, "--tie", "0:0.4", "--json")[1])
    ties = Ties(((0, 0.4),))
    assert data["rollouts"][0]["win_rate"] == rollouts(BestOfN(4), 0.5, [16], ties=ties)[0].win_rate
    assert data["enough"] == enough_rollouts(BestOfN(4), 0.5, 0.01, ties=ties)
    out = infalign_command(*arguments, "--rho", "0.6")[1]
    (row,) = rollouts(BestOfN(4), 0.5, [16], agreement=0.6)
    assert f"{row.win_rate:.3f}" in out
    assert "gold judge, agreement ρ = 0.6" in out


def test_rollouts_for_a_procedure_that_looks_at_quantiles(infalign_command):
    arguments = ("--rollouts", "16", "-p", "rewind_and_repeat(0.5,4)", "--kl", "0.5", "--json")
    data = json.loads(infalign_command("plan", *arguments)[1])
    (row,) = rollouts(RewindAndRepeat(0.5, 4), 0.5, [16])
    assert data["rollouts"][0]["win_rate"] == pytest.approx(row.win_rate)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--pass-rate 0.3 --kl 1.3", "less than 1.20397 nats can be used"),
        ("--tie 0.7:1 --kl 1.3", "less than 1.20397 nats can be used"),
        ("--rollouts 16 --pass-rate 0.3 --kl 1.3", "less than 1.20397 nats can be used"),
        ("--rollouts 16 -t log --tie 0.7:1 --kl 1.3", "less than 1.20397 nats can be used"),
        ("--loss 1 -t log --tie 0.7:1 --kl 1.3", "less than 1.20397 nats can be used"),
        ("--target-win-rate 0.9 --ns 1 --pass-rate 0.3", "out of reach with best-of-1"),
        ("--pass-rate 1", "strictly between 0 and 1"),
        ("--pass-rate nan", "strictly between 0 and 1"),
        ("--tie 0.4", "--tie 0.4: two quantiles are needed, as in --tie 0:0.4"),
        ("--tie 0.5:0.2", "(0.5, 0.2)"),
        ("--tie 0:0.5 --tie 0.4:1", "overlaps"),
        ("--tie 0:0.5 --pass-rate 0.5", "Give one"),
        ("--mismatch --pass-rate 0.5", "--pass-rate does not go with --mismatch"),
        ("--power --tie 0:0.5", "--tie does not go with --power"),
        ("--gold --rho 0.5 --tie 0:0.5", "--tie does not go with --gold"),
        ("--html plan.html --tie 0:0.5", "Leave the other out"),
    ],
)
def test_what_ties_cannot_do_is_told(arguments, message, infalign_command):
    code, out, err = infalign_command("plan", *arguments.split())
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
