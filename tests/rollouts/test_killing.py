"""Killed anywhere and resumed, a store is that of a run that was never stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_store import contents

KILLS = 50

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")


@pytest.fixture(scope="module")
def kills(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nursery")
    script = Path(__file__).with_name("nursery.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "0", str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


def test_killed_at_fifty_points_and_resumed_is_as_if_never_stopped(kills):
    _, found = kills
    assert len(found) == KILLS
    wrong = [kill for kill in found if kill["resumed"] != 0 or not kill["same"]]
    assert wrong == []


def test_the_writers_were_killed_at_many_points_and_their_last_files_torn(kills):
    """Else the test above would have shown nothing."""
    _, found = kills
    assert {kill["status"] for kill in found} == {-signal.SIGKILL}
    assert len({kill["before"] for kill in found}) == KILLS
    assert sum(kill["torn"] for kill in found) >= KILLS // 10
    # A rollout that is torn takes its rewards with it, if it has any yet.
    assert all((kill["damaged"] > 0) == kill["torn"] for kill in found)


def test_the_comparison_sees_a_difference(kills, tmp_path):
    """Negative control: a file too few, a byte too few."""
    folder, _ = kills
    whole = contents(folder / "whole")
    name = next(name for name in whole if name.startswith("rewards"))
    other = tmp_path / "s"
    other.mkdir()
    for file in (folder / "whole").rglob("*"):
        if file.is_file():
            target = other / file.relative_to(folder / "whole")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    assert contents(other) == whole
    (other / name).write_bytes((other / name).read_bytes()[:-1])
    assert contents(other) != whole
    (other / name).unlink()
    assert contents(other) != whole
