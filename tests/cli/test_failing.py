"""Whatever happens: the right exit code, a message, and a traceback for defects only."""

import errno
import os

import numpy as np
import pytest
import typer

from infalign.assets import AssetError
from infalign.cli.failing import explained
from infalign.quantile.procedures import BestOfN


@pytest.fixture
def broken(infalign_command, pipeline, experiment_file):
    """Runs an experiment whose training raises."""

    def run(error, *options):
        pipeline.breaks["evaluate"] = error
        return infalign_command("run", str(experiment_file), *options)

    return run


USER_ERRORS = [
    (ValueError("prompts are too few; add some."), "prompts are too few; add some."),
    (FileNotFoundError("no such store."), "no such store."),
    (BlockingIOError("the store is being written by another run."), "by another run"),
    (AssetError("could not fetch it: no network"), "no network"),
    (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: No space left"),
    (PermissionError(errno.EACCES, "Permission denied", "/runs"), "may write to, with --output"),
    (MemoryError("4 GB"), "out of memory: 4 GB\nLower training.prompts_per_pass"),
]


@pytest.mark.parametrize(("error", "message"), USER_ERRORS, ids=lambda v: type(v).__name__)
def test_a_user_error_is_a_message_and_code_2(error, message, broken):
    code, out, err = broken(error)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_full_disk_says_what_is_kept_and_how_to_go_on(broken, experiment_file):
    _, _, err = broken(OSError(errno.ENOSPC, "No space left on device"))
    assert "Free some, or choose another folder with --output." in err
    assert f"kept in {experiment_file.parent / 'out'}" in err
    assert f"  infalign run {experiment_file}" in err


def test_notes_are_printed(broken):
    error = ValueError("the reward is NaN.")
    error.add_note("Prompt abc: 'Say'.")
    assert "the reward is NaN.\nPrompt abc: 'Say'.\n" in broken(error)[2]


def test_debug_adds_the_traceback_wherever_it_stands(broken, infalign_command, experiment_file):
    code, _, err = broken(ValueError("a mistake."), "--debug")
    assert code == 2
    assert "Traceback" in err
    assert "error: a mistake." in err
    assert "Traceback" in infalign_command("--debug", "run", str(experiment_file))[2]
    assert "Traceback" not in infalign_command("run", str(experiment_file))[2]


def test_a_defect_shows_its_traceback_and_is_code_1(broken):
    code, _, err = broken(TypeError("unsupported operand"))
    assert code == 1
    assert "Traceback" in err
    assert "please report" in err


def test_ctrl_c_is_130_with_what_is_kept_and_the_command_that_goes_on(broken, experiment_file):
    code, out, err = broken(KeyboardInterrupt(), "--set", "name=two words")
    assert (code, out) == (130, "")
    assert err.startswith("stopped: by Ctrl-C.")
    assert f"kept in {experiment_file.parent / 'out'}" in err
    assert f"\n  infalign run {experiment_file} --set 'name=two words'\n" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("package", "extra"),
    [("torch", "lm"), ("peft.tuners", "lm"), ("matplotlib", "report"), ("trl", "trl")],
)
def test_a_missing_package_names_the_extra(package, extra, broken):
    error = ModuleNotFoundError(f"No module named {package!r}", name=package)
    code, _, err = broken(error)
    assert code == 2
    assert f"pip install 'infalign[{extra}]'" in err


def test_an_import_message_that_says_how_to_install_is_kept(broken):
    error = ImportError("CausalLM needs torch: pip install 'infalign[lm]'")
    assert broken(error)[2] == "error: CausalLM needs torch: pip install 'infalign[lm]'\n"


def test_a_missing_module_of_ours_is_a_defect(broken):
    assert broken(ModuleNotFoundError("No module", name="infalign.gone"))[0] == 1


def ended(capsys, function):
    with pytest.raises(typer.Exit) as end:
        explained(function)()
    return end.value.exit_code, capsys.readouterr().err


def test_what_we_raise_is_for_the_user_whatever_its_type(capsys):
    from infalign.rewards import FunctionReward

    def broken_reward(prompts, responses):
        raise ZeroDivisionError("division by zero")

    code, err = ended(capsys, lambda: FunctionReward(broken_reward)(["Hi"], [["Yo"]]))
    assert code == 2
    assert "broken_reward raised ZeroDivisionError" in err
    assert "'Hi'" in err
    assert "Traceback" not in err


def test_a_value_error_that_we_did_not_raise_says_where_to_look(capsys):
    code, err = ended(capsys, lambda: np.zeros(2) + np.zeros(3))
    assert code == 2
    assert "--debug shows" in err
    assert "--debug" not in ended(capsys, lambda: BestOfN(0))[1]


def test_a_closed_pipe_is_no_error(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout", open(os.devnull, "w"))  # noqa: SIM115

    def reader_has_gone():
        raise BrokenPipeError

    assert ended(capsys, reader_has_gone) == (0, "")
