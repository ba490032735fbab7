"""What other engines load: numpy, pyarrow and the standard library, nothing else of anyone's."""

import json
import os
import subprocess
import sys

import pytest

from infalign.integrations import openrlhf, verl
from infalign.integrations.engine_files import Batches
from infalign.integrations.frozen import FrozenReward

HOOK = """
import importlib.abc, sys

ALLOWED = {*sys.stdlib_module_names, "numpy", "pyarrow", "infalign", %(module)r}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in ALLOWED and not top.startswith(("__editable__", "_sysconfigdata")):
            raise ImportError(f"refused: {name}")

sys.meta_path.insert(0, Refuse())
for name in list(sys.modules):  # loaded at start-up by what is installed here
    if name.split(".")[0] not in ALLOWED | {"__main__", "sitecustomize", "usercustomize"}:
        del sys.modules[name]
"""


def run(code, module="bucket_reward", **environment):
    """Run code in a process where everything else is refused; what it printed."""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", HOOK % {"module": module} + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["scipy", "torch", "jaxtyping", "yaml", "pydantic"])
def test_the_hook_refuses(name):
    """Negative control: what the package itself uses elsewhere cannot be imported here."""
    code = f"""
try:
    import {name}
except ImportError as error:
    print(error)
"""
    assert run(code).strip() == f"refused: {name}"


def test_a_frozen_reward_loads_and_scores(frozen, prompts):
    code = f"""
import json
from infalign.integrations import frozen, openrlhf, verl
score = verl.load({str(frozen)!r})
openrlhf.load({str(frozen)!r})
print(json.dumps(score("", "42", "", {{"prompt_id": {prompts[0].id!r}}})))
"""
    expected = FrozenReward.load(frozen).score([prompts[0].id], ["42"])
    assert json.loads(run(code)) == {
        "score": expected.training_rewards[0],
        "raw_reward": expected.rewards[0],
        "quantile": expected.quantiles[0],
    }


def test_exported_files_import(frozen, prompts, tmp_path):
    """`reward.py` of both, by its path, as the engines import it; and the variable moves it."""
    batches = Batches(prompts=1)
    verl.write_verl(frozen, prompts, tmp_path / "verl", batches=batches)
    openrlhf.write_openrlhf(frozen, prompts, tmp_path / "openrlhf", batches=batches)
    code = f"""
import runpy
print("compute_score" in runpy.run_path({str(tmp_path / "verl/reward.py")!r}))
print("reward_func" in runpy.run_path({str(tmp_path / "openrlhf/reward.py")!r}))
"""
    assert run(code).split() == ["True", "True"]
    moved = tmp_path / "elsewhere"
    (tmp_path / "verl").rename(moved)
    lost = f"""
import runpy
try:
    runpy.run_path({str(moved / "reward.py")!r})
except FileNotFoundError:
    print("lost")
"""
    assert (
        run(code.replace("/verl/", "/elsewhere/"), INFALIGN_FROZEN=str(frozen)).split()[0] == "True"
    )
    assert run(lost, INFALIGN_FROZEN=str(tmp_path / "nowhere")).strip() == "lost"
