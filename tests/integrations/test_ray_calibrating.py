"""Ray: calibrated by workers bit for bit as here; and workers that no cluster has."""

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray_words import PROMPTS

from infalign.integrations.freezing import freeze
from infalign.integrations.frozen import FrozenReward
from infalign.rollouts import RolloutStore

pytest.importorskip("ray", reason="needs infalign[ray]")

from infalign.integrations.ray import Workers, calibrate, connect, rewards_of
from infalign.integrations.ray.calibrating import COLUMNS, Calibrate

TWO = Workers(2)


@pytest.fixture
def length_frozen(tmp_path):
    rng = np.random.default_rng(0)
    return freeze(
        tmp_path / "line\nValueError: break",
        prompt_ids=[prompt.id for prompt in PROMPTS],
        prompts=[prompt.text for prompt in PROMPTS],
        reference_rewards=rng.integers(0, 9, (len(PROMPTS), 16)) / 3,
        rank_means=np.sort(rng.normal(size=17)),
        facts={
            "k": 16,
            "beta": 0.1,
            "reward": {"name": "length"},
            "transform": "log",
            "procedure": "best_of_4",
            "policy": {},
            "sampling": {"stop": []},
            "end_marks": [],
        },
    )


def test_calibrating_gives_the_same_bits(cluster, length_frozen, tmp_path):
    rng = np.random.default_rng(1)
    ids = [PROMPTS[i].id for i in rng.integers(0, len(PROMPTS), 3000)]
    table = pa.table({"prompt_id": ids, "reward": rng.integers(-1, 10, 3000) / 3})
    here = FrozenReward.load(length_frozen).calibrate(ids, table["reward"].to_numpy())
    path = calibrate(
        table, length_frozen, workers=TWO, output=tmp_path / "c.parquet", batch_size=500, ship=True
    )
    written = pq.read_table(path)
    assert written.column_names == ["prompt_id", "reward", *COLUMNS]
    assert written.equals(Calibrate(length_frozen)(table))
    assert written["training_reward"].to_numpy().tobytes() == here.training_rewards.tobytes()
    assert written["quantile"].to_numpy().tobytes() == here.quantiles.tobytes()
    assert list(tmp_path.glob(".*")) == [], "nothing unfinished is left"


def test_stored_rewards_are_calibrated_and_unknown_prompts_named(
    cluster, alone, length_frozen, tmp_path
):
    table = rewards_of(RolloutStore.existing(alone), "length")
    assert table.select(["prompt_id", "sample"]).equals(
        RolloutStore.existing(alone).read().select(["prompt_id", "sample"])
    )
    assert Calibrate(length_frozen)(table).num_columns == 7
    # A message of two lines, by the folder's name, is handed on whole, without what Ray adds.
    unknown = pa.table({"prompt_id": ["nobody"], "reward": [1.0]})
    with pytest.raises(ValueError, match="no reference rewards") as here:
        FrozenReward.load(length_frozen).rows_of(["nobody"])
    assert "\nValueError: break" in str(here.value)
    with pytest.raises(ValueError, match=f"^{re.escape(str(here.value))}$"):
        calibrate(unknown, length_frozen, workers=Workers(1), output=tmp_path / "c.parquet")
    assert not list(tmp_path.glob("*c.parquet*"))
    with pytest.raises(ValueError, match="prompt_id and reward are needed"):
        calibrate(table.drop_columns("reward"), length_frozen)
    with pytest.raises(ValueError, match="it has \\['length'\\]"):
        rewards_of(RolloutStore.existing(alone), "width")


# The cluster.


def test_impossible_workers_are_refused():
    for options in ({"count": 0}, {"cpus": 0}, {"gpus": -1}, {"gpus": 1.5}):
        with pytest.raises(ValueError, match="is needed"):
            Workers(**options)


def test_slips_are_refused_before_ray_starts(monkeypatch):
    for options in ({"count": 10_001}, {"cpus": float("inf")}, {"gpus": float("inf")}):
        with pytest.raises(ValueError, match="at most 10000 is needed"):
            Workers(**options)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda *args, **options: pytest.fail("Ray was started"))
    here = os.cpu_count()
    if here > 1024:
        pytest.skip("this machine has more CPUs than are refused")
    with pytest.raises(ValueError, match=rf"workers is 1025 .* this machine has {here}\."):
        connect("local", Workers(1025))


def test_a_start_that_fails_names_the_option(monkeypatch):
    def failing(*args, **options):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", failing)
    with pytest.raises(ConnectionError, match=r"timed out.*Lower cluster.workers \(3\)"):
        connect("local", Workers(3))


def test_a_worker_that_fits_no_machine_is_refused(cluster):
    with pytest.raises(ValueError, match="a worker needs 1 CPU and 1000 GPU"):
        connect("local", Workers(1, gpus=1000))
