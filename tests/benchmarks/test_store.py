"""The store's benchmark runs, and its rivals agree with what it measures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "store"


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_a_small_run_measures_everything_and_writes_nothing():
    pytest.importorskip("pandas")
    before = {file: file.stat().st_mtime_ns for file in BENCHMARK.glob("*.*")}
    done = subprocess.run(
        [sys.executable, str(BENCHMARK / "run.py"), "--smoke"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"setting", "store", "calibration"} <= result.keys()
    for sizes in result["store"].values():
        assert sizes["stream"]["rows"] == sizes["export"]["rows"]
        assert sizes["append"]["shards"] > 0
    assert result["one reward at a time, microseconds"]["FrozenReward.calibrate"] > 0
    assert {file: file.stat().st_mtime_ns for file in BENCHMARK.glob("*.*")} == before
