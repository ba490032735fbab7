"""Real processes: exit codes, streams, signals, and what is loaded."""

import os
import signal
import subprocess
import sys

import pytest

LOADED = """
import sys
from infalign.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
loaded = {'torch', 'transformers', 'pandas', 'matplotlib'} & set(sys.modules)
assert not loaded, loaded
"""
WITHOUT_TORCH = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nowhere())
from infalign.cli import main
main()
"""
STUCK = """
import sys, time, types
stuck = types.ModuleType("infalign.pipeline")
def open_study(experiment, show):
    import pathlib
    pathlib.Path(experiment.output).mkdir()
    show.say("working")
    with show.progress("rollouts") as update:
        update(1, 2)
        time.sleep(60)
stuck.open_study = open_study
import infalign
sys.modules["infalign.pipeline"] = infalign.pipeline = stuck
from infalign.cli import main
main()
"""


def python(code, *arguments, **options):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.parametrize("arguments", [["plan", "--kl", "0.5"], ["--help"], ["assets", "list"]])
def test_light_verbs_load_nothing_heavy(arguments):
    done = python(LOADED, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_it_runs_as_a_module_and_refuses_with_code_2(tmp_path):
    command = [sys.executable, "-m", "infalign", "run", "nothing.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no experiment file at nothing.yaml")


def test_ctrl_c_ends_with_130_and_the_command_that_goes_on(tmp_path):
    (tmp_path / "experiment.yaml").write_text("output: out")
    command = [sys.executable, "-c", STUCK, "run", "experiment.yaml"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "stopped: by Ctrl-C." in err
    assert "kept in out" in err
    assert "run experiment.yaml" in err
    assert "Traceback" not in err


def test_without_torch_the_extra_is_named(tmp_path):
    (tmp_path / "experiment.yaml").write_text("output: out")
    done = python(WITHOUT_TORCH, "run", "experiment.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'infalign[lm]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_libraries_are_told_to_be_quiet_before_they_load():
    code = (
        "import os, sys\n"
        "from infalign.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit: pass\n"
        "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_DISABLE_TELEMETRY"}
    environment["OMP_WAIT_POLICY"] = "ACTIVE"
    assert python(code, env=environment).stdout.splitlines()[-1] == "1 ACTIVE"
