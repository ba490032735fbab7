"""Transforms and procedures of the user's own, by `module:name`."""

import json
import sys

import pytest

from infalign import BestOfN
from infalign.planner import plan
from infalign.quantile.transforms import Custom

MODULE = '''
import numpy as np
from infalign import BestOfN, Exponential, Procedure

def steep(u):
    return u**3

def valley(u):
    return (u - 0.25) ** 2

def broken(u):
    return u.nonsense

READY = Exponential(5)
BEST = BestOfN(4)
NUMBER = 4

class Half(Procedure):
    """The better of two, or only the first: by a fair coin."""

    name, candidates = "half", 2
    law = 0.5

    def decoded_density(self, mesh, density):
        return density * (0.5 + self.law * 2 * mesh.below(density))

    def select(self, quantiles, rng):
        first = rng.random(quantiles.shape[:-1]) < 0.5
        return np.where(first, 0, quantiles.argmax(axis=-1))

class Unlike(Half):
    def select(self, quantiles, rng):
        return quantiles.argmax(axis=-1)

class Closed(Half):
    def first_variation(self, mesh, density, worth):
        below, mass = mesh.below(density), mesh.integral(worth * density)
        above = mass[..., None] if np.ndim(mass) else mass
        return worth * (0.5 + below) + above - mesh.below(worth * density)

HALF, UNLIKE, CLOSED = Half(), Unlike(), Closed()
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A module of the user's where the command is started, which is not on the Python path."""
    (tmp_path / "my_plans.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_plans", None)


def test_a_function_is_a_transform(infalign_command):
    arguments = ("--transform", "my_plans:steep", "-t", "my_plans:READY", "--kl", "0.5", "--json")
    code, out, err = infalign_command("plan", *arguments)
    assert code == 0, err
    rows = json.loads(out)[0]["transforms"]
    assert [row["transform"] for row in rows] == ["steep", "exp(5)", "optimal"]
    expected = plan(BestOfN(4), 0.5, transforms=[Custom(lambda u: u**3, "steep")])[0]
    assert rows[0]["decoded_win_rate"] == pytest.approx(expected.decoded_win_rate)


def test_an_object_is_a_procedure(infalign_command):
    out = infalign_command("plan", "--procedure", "my_plans:BEST", "--json")[1]
    last = plan(BestOfN(4), 1.0)[-1]
    found = json.loads(out)[0]["transforms"][-1]["decoded_win_rate"]
    assert found == pytest.approx(last.decoded_win_rate)


def test_a_procedure_with_a_closed_first_variation_has_an_optimum(infalign_command):
    """A fair coin between one and the better of two is best-of-random-count."""
    own, ours = (
        json.loads(infalign_command("plan", "-p", name, "--kl", "0.5", "--json")[1])[0]
        for name in ("my_plans:CLOSED", "random_count(0.5, 0.5)")
    )
    for one, other in zip(own["transforms"], ours["transforms"], strict=True):
        assert one["decoded_win_rate"] == pytest.approx(other["decoded_win_rate"], abs=1e-8)


def test_without_one_it_is_said_what_an_optimum_takes(infalign_command):
    code, out, err = infalign_command("plan", "-p", "my_plans:HALF", "--kl", "0.5")
    assert (code, out) == (2, "")
    assert "HALF has no first_variation of its own" in " ".join(err.split())
    arguments = ("-p", "my_plans:HALF", "--kl", "0.5", "--rollouts", "16", "-t", "log")
    assert infalign_command("plan", *arguments)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-t my_plans:valley", "'valley' falls from 0.0625 at u = 0 to 0 at u = 0.25"),
        ("-t my_plans:broken", "my_plans:broken raised AttributeError"),
        ("-t my_plans:NUMBER", "is a int; a function of an array of quantiles is needed"),
        ("-t my_plans:Half", "is the class Half"),
        ("-t my_plans:absent", "--transform my_plans:absent could not be imported"),
        ("-t no_such_module:phi", "No module named 'no_such_module'"),
        ("-p my_plans:UNLIKE", "select and decoded_cdf disagree"),
        ("-p my_plans:Half", "is the class Half; a procedure object is needed"),
        ("-p my_plans:steep", "is a function; a procedure object"),
        ("-p my_plans:BEST --n 8", "leave out --n 8"),
        ("--reference my_plans:absent", "--reference my_plans:absent could not be imported"),
    ],
)
def test_what_is_wrong_with_ones_own_is_told(arguments, message, infalign_command):
    code, out, err = infalign_command("plan", *arguments.split())
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err
