"""Readers beside a writer: they see whole shards, more and more of them."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_store import CHUNK, PROMPTS, K, Length, collected, contents

from infalign.rollouts import RolloutStore, score

READER = """
import sys, warnings
from pathlib import Path
import small_store
from infalign.rollouts import RolloutStore

warnings.simplefilter("error")
path, ready, seen = Path(sys.argv[1]), Path(sys.argv[2]), set()
while True:
    ended = (path / "ended").exists()
    store = RolloutStore.existing(path)
    table = store.read()
    seen.add(table.num_rows)
    if "length" in table.column_names:
        scored = [row for row in table.to_pylist() if row["length"] is not None]
        assert all(row["length"] == len(row["text"]) for row in scored)
    ready.touch()
    if ended:
        break
print(*sorted(seen))
"""


@pytest.fixture
def readers(tmp_path):
    """Two processes that open and read the store, again and again, until the writer ends."""
    started = []

    def start(path):
        for number in range(2):
            ready = tmp_path / f"ready-{number}"
            command = [sys.executable, "-c", READER, str(path), str(ready)]
            folder = str(Path(__file__).parent)
            started.append(
                (subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True), ready)
            )
        for process, ready in started:
            while not ready.exists():
                assert process.poll() is None, "a reader died"
        return [process for process, _ in started]

    yield start
    for process, _ in started:
        process.kill()
        process.wait()


def test_readers_see_whole_shards_while_a_writer_writes(tmp_path, readers):
    path = tmp_path / "s"
    collected(path, prompts=PROMPTS[:CHUNK])
    processes = readers(path)
    score(collected(path), Length(delay=0.05), PROMPTS, chunk=CHUNK)
    collected(path, k=K + 3)
    (path / "ended").touch()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        seen = [int(number) for number in output.split()]
        assert seen[0] >= CHUNK * K
        assert seen[-1] == len(PROMPTS) * (K + 3)
        assert all(rows % K == 0 or rows > len(PROMPTS) * K for rows in seen)
    assert not any(name.startswith("damaged") for name in contents(path))


def test_a_reader_keeps_what_it_opened_while_the_store_grows(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:4])
    reader = RolloutStore.existing(tmp_path / "s")
    before = reader.responses(PROMPTS[:4])
    score(collected(tmp_path / "s"), Length(), PROMPTS, chunk=CHUNK)
    assert reader.responses(PROMPTS[:4]) == before == store.responses(PROMPTS[:4])
    with pytest.raises(ValueError, match="0 rollouts of prompt"):
        reader.responses(PROMPTS[4:])


def test_two_who_set_the_same_shard_aside_do_not_stumble(tmp_path, monkeypatch):
    """The other was first: between looking and moving the file is gone."""
    collected(tmp_path / "s")
    shard = sorted((tmp_path / "s" / "rollouts").iterdir())[0]
    shard.write_bytes(b"torn")
    replace = Path.replace

    def late(self, target):
        replace(self, target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", late)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = RolloutStore.existing(tmp_path / "s")
    assert np.sum(store.counts(PROMPTS)) == K * (len(PROMPTS) - CHUNK)
