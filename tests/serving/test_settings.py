"""What cannot be served is refused when the server is made, not when somebody asks."""

import math

import pytest

from infalign import BestOfN
from infalign.decoding import BlockwiseBestOfN, Draw, TextProcedure
from infalign.policies.openai_server import Connection
from infalign.serving import Limits, Recipe, Serving, create_app


@pytest.mark.parametrize("value", [0, -1, True, 1.5, math.nan, "8", None])
@pytest.mark.parametrize("name", ["candidates", "concurrency", "body_bytes", "reward_texts"])
def test_counts_are_counts(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [0, -1.0, True, math.nan, math.inf])
@pytest.mark.parametrize("name", ["seconds", "keep_alive"])
def test_times_are_times(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        Limits(**{name: value})


def test_nobody_may_have_to_wait():
    assert Limits(queue=0).queue == 0
    with pytest.raises(ValueError, match="queue is -1"):
        Limits(queue=-1)


@pytest.mark.parametrize(
    ("name", "settings", "n"),
    [("best_of_n", {"n": 8}, 8), ("best-of-8", {}, 8), ("Worst_Of_3", {}, 3), ("best_of_8", {}, 8)],
)
def test_a_recipe_makes_the_procedure_of_its_name(name, settings, n):
    recipe = Recipe(name, settings)
    assert recipe.made().most == n
    assert recipe.takes_n
    assert recipe.made(n=5).most == 5


def test_settings_in_brackets_stay_as_they_are():
    recipe = Recipe("rewind_and_repeat(0.9, 8)")
    assert recipe.made().most == 8
    assert not recipe.takes_n


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("best_of_m", {"n": 8}, "Did you mean 'best_of_n'"),
        ("best_of_n", {}, "needs n"),
        ("best_of_n", {"n": 0}, "n is 0"),
        ("best_of_n", {"n": 8, "beta": 1.0}, "Unknown setting 'beta'"),
    ],
)
def test_a_recipe_for_nothing_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(name, settings)


class Filling(TextProcedure):
    name, most, needs_gaps = "filling", 1, True

    def steps(self, prompt, rng):
        yield Draw(erased=((None,),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"procedure": BestOfN(200)}, "draws up to 200 responses.*--max-n"),
        ({"procedure": Filling()}, "no OpenAI-compatible server can"),
        ({"procedure": BlockwiseBestOfN(2, block=4)}, "must speak token ids"),
        ({"procedure": BlockwiseBestOfN(2, block=4), "server": "sglang"}, "must speak token ids"),
        ({"procedure": Recipe("rewind_and_repeat(0.9, 8)")}, "--calibrate 16"),
        ({"calibrate": 1}, "at least 2"),
        ({"calibrate": -1}, "calibrate is -1"),
        ({"n_per_request": 0}, "n_per_request is 0"),
        ({"server": "ollama"}, "must be one of"),
        ({"key_env": "NOT_SET_ANYWHERE"}, "is not set"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        Serving(Connection(), **{"procedure": BestOfN(4), **settings})


def test_what_can_be_served_is_not():
    """Negative control."""
    Serving(Connection(), BestOfN(128))
    Serving(Connection(), BlockwiseBestOfN(2, block=4), server="vllm")
    Serving(Connection(), Recipe("rewind_and_repeat(0.9, 8)"), calibrate=2)


def test_a_reward_is_needed_to_choose_by():
    with pytest.raises(ValueError, match=r"needs a reward.*--reward"):
        create_app(Serving(Connection(), BestOfN(4)), None)
    create_app(Serving(Connection(), BestOfN(1)), None)


def test_importing_the_room_loads_no_server():
    import subprocess
    import sys

    heavy = "{'starlette', 'uvicorn', 'openai', 'torch', 'prometheus_client'}"
    for module in ("infalign", "infalign.decoding", "infalign.serving", "infalign.cli"):
        code = f"import sys, {module}; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, f"{module} loads {run.stderr}"
