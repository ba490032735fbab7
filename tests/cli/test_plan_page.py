"""`infalign plan --html`: the page starts from what was asked, and says what it cannot."""

import json
import re

import pytest

from infalign.planner.page import START

SOFT = {"procedure": "soft_best_of_n", "n": 3, "temperature": 0.3}
REWIND = {"procedure": "rewind_and_repeat", "threshold": 0.9, "at_most": 8}
CHAIN = {"procedure": "metropolis_hastings", "steps": 16, "n": 5}


@pytest.fixture
def page(infalign_command, tmp_path):
    """Where the page of a command starts, and the notes on standard error."""

    def made(arguments):
        path = tmp_path / "plan.html"
        code, out, err = infalign_command("plan", "--html", str(path), *arguments.split())
        assert (code, out.strip()) == (0, str(path)), err
        found = re.search(r'id="start">(.*?)</script>', path.read_text())
        assert found is not None
        return json.loads(found[1]), " ".join(err.split())

    return made


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ("", {}),
        ("--n 8 --kl 0.5", {"n": 8, "kl": 0.5}),
        ("-p identity", {"procedure": "identity"}),
        ("-p worst_of_2", {"procedure": "worst_of_n", "n": 2}),
        ("-p median_of_5", {"procedure": "median_of_n", "n": 5}),
        ("-p best_of_poisson(3)", {"procedure": "best_of_poisson", "n": 3}),
        ("-p soft_best_of_3(0.3)", SOFT),
        ("-p rewind_and_repeat(0.9,8)", REWIND),
        ("-p metropolis_hastings(16,n=5)", CHAIN),
        ("--transform exp(-5)", {"transform": "exponential", "t": -5.0}),
        ("--transform log", {"transform": "log"}),
        ("--transform identity", {"transform": "identity"}),
        ("--transform optimal", {}),
        ("--rollouts 32 --rho 0.7", {"k": 32, "agreement": 0.7}),
    ],
)
def test_every_setting_reaches_its_control(page, arguments, values):
    start, said = page(arguments)
    assert start == START | values
    assert said == ""


@pytest.mark.parametrize(
    ("arguments", "values", "said"),
    [
        ("--kl 6", {"kl": 4}, "kl 6 is beyond what the page shows; it starts from 4"),
        ("--rho -0.5", {"agreement": 0}, "agreement -0.5 is beyond"),
        ("--n 500", {"n": 128}, "n 500 is beyond what the page shows; it starts from 128"),
        ("-t exp(50)", {"transform": "exponential", "t": 40}, "t 50 is beyond"),
        ("--rollouts 9999", {"k": 4096}, "k 9999 is beyond"),
        ("-p rewind_and_repeat(0.995,4)", REWIND | {"threshold": 0.99, "at_most": 4}, "0.995"),
        ("-p rewind_and_repeat(0.9,300)", REWIND | {"at_most": 128}, "at_most 300 is beyond"),
        ("-p soft_best_of_3(20)", SOFT | {"temperature": 10}, "temperature 20 is beyond"),
        ("-p metropolis_hastings(99,n=5)", CHAIN | {"steps": 64}, "steps 99 is beyond"),
        ("-p metropolis_hastings(16,0.26)", CHAIN, "starts from n = 5, not from β = 0.26"),
        ("-p best_of_poisson(3.4)", {"procedure": "best_of_poisson", "n": 3}, "a whole mean"),
        ("-p best_of_geometric(6)", {"n": 6}, "no best-of-geometric(6); it starts from best-of-6"),
        ("-p order_statistic --probabilities 0,1,0,0", {}, "it starts from best-of-4"),
        ("--kl 0.5 --kl 1", {"kl": 0.5}, "Of 2 values of --kl"),
        ("-t log -t identity", {"transform": "log"}, "Of 2 transforms"),
        ("--rollouts 16,64", {"k": 16}, "Of 2 numbers of rollouts"),
    ],
)
def test_what_the_page_cannot_show_is_said(page, arguments, values, said):
    start, notes = page(arguments)
    assert start == START | values
    assert said in notes


def test_the_page_starts_from_an_experiment(page, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "procedure: {kind: worst_of_n, n: 2}\ntransform: {kind: exponential, t: -5}\n"
        "rollouts: {k: 48}\ntraining: {kind: online, kl: 0.7}"
    )
    start, _ = page(str(path))
    expected = {"procedure": "worst_of_n", "n": 2, "kl": 0.7, "k": 48}
    assert start == START | expected | {"transform": "exponential", "t": -5.0}
