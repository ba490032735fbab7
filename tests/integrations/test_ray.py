"""Ray: whichever worker answers first and whichever dies, the store is the single-process one."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import ray_words
from ray_words import CHUNK, PROMPTS, SEED, K, Length, Words, contents, notes, opened

from infalign.rollouts import RolloutStore, chunks, collect, draw

pytest.importorskip("ray", reason="needs infalign[ray]")

from infalign.integrations.ray import Workers, reward, rollout
from infalign.integrations.ray.actors import Task, results

TWO = Workers(2)


@pytest.fixture
def seen(tmp_path):
    folder = tmp_path / "seen"
    folder.mkdir()
    return folder


def test_the_store_equals_the_single_process_one_row_for_row(cluster, alone, tmp_path, seen):
    store, counts, arrived = opened(tmp_path / "s"), [], []

    def watch(*count):
        counts.append(count)
        arrived[:] = store.index.ids

    policy = Words(str(seen), late=str(store.path))
    rollout(policy, PROMPTS, K, store, workers=TWO, chunk=CHUNK, progress=watch)
    reward(store, Length(), PROMPTS, workers=TWO, chunk=CHUNK)
    assert store.read().equals(RolloutStore.existing(alone).read())
    assert contents(tmp_path / "s") == contents(alone)
    assert len({process for process, _ in notes(seen)}) == 2
    assert counts[0] == (0, 44)
    assert counts[-1] == (44, 44)
    assert len(counts) == 1 + 6
    # The first chunk came after others, or the order would not have been put to the test.
    assert sorted(arrived) == sorted(prompt.id for prompt in PROMPTS)
    assert arrived[0] != PROMPTS[0].id


def test_killed_workers_cost_nothing(cluster, alone, tmp_path, seen):
    kill = 2
    store = opened(tmp_path / "s")
    rollout(Words(str(seen), kill), PROMPTS, K, store, workers=TWO, chunk=CHUNK)
    assert len(list(seen.glob("killed-*"))) == kill
    assert [prompt for _, prompt in notes(seen)].count("question 4") == kill + 1
    assert store.read().equals(RolloutStore.existing(alone).read().drop_columns("length"))


def test_a_killed_worker_costs_nothing_while_scoring(cluster, alone, tmp_path, seen):
    store = opened(tmp_path / "s")
    collect(Words(), PROMPTS, K, store, chunk=CHUNK)
    reward(store, Length(str(seen), kill=1), PROMPTS, workers=TWO, chunk=CHUNK)
    assert len(list(seen.glob("killed-*"))) == 1
    assert contents(tmp_path / "s") == contents(alone)


def test_the_comparison_can_fail(alone, tmp_path):
    """Negative control: random numbers that follow from the order of arrival are noticed."""
    missing = chunks(opened(tmp_path / "empty"), PROMPTS, K, CHUNK)

    def backwards(name, answer):
        store = opened(tmp_path / name)
        with store.writing():
            for part in missing[::-1]:
                store.add_rollouts(part.prompts, part.samples, answer(part))
        return store.read()

    whole = RolloutStore.existing(alone).read().drop_columns("length")
    stream = np.random.default_rng(SEED)
    in_order_of_arrival = backwards(
        "stream", lambda part: Words().sample([p.text for p in part.prompts], K, stream)
    )
    assert in_order_of_arrival["sample"].equals(whole["sample"])
    assert not in_order_of_arrival.equals(whole)
    assert backwards("drawn", lambda part: draw(Words(), part, SEED)).equals(whole)


# What stops, and how it goes on.


def test_an_error_is_raised_here_once_and_the_rest_is_drawn_by_the_next_run(
    cluster, alone, tmp_path, seen
):
    store = opened(tmp_path / "s")
    broken = Words(str(seen), error=ValueError("the tokenizer has no such word"))
    with pytest.raises(ValueError, match="the tokenizer has no such word") as caught:
        rollout(broken, PROMPTS, K, store, workers=Workers(1), chunk=CHUNK)
    assert str(caught.value) == "the tokenizer has no such word"
    assert "Raised in worker" in caught.value.__notes__[0]
    assert "in fail" in str(caught.value.__cause__)
    asked = [prompt for _, prompt in notes(seen)]
    assert asked.count("question 4") == 1
    kept = contents(tmp_path / "s")
    assert 1 < len(kept) < 7, "the identity, and some shards"
    rollout(Words(str(seen)), PROMPTS, K, store, workers=Workers(1), chunk=CHUNK)
    assert kept.items() < contents(tmp_path / "s").items()
    assert store.read().equals(RolloutStore.existing(alone).read().drop_columns("length"))
    again = [prompt for _, prompt in notes(seen)][len(asked) :]
    assert len(again) == 7 - len(kept), "only what was missing"


def test_a_killed_driver_is_resumed(cluster, alone, tmp_path):
    """By this process alone: what is there does not depend on who made it."""
    path = tmp_path / "s"
    command = [sys.executable, ray_words.__file__, str(path), cluster]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert 0 < len(list(path.glob("rollouts/*.parquet"))) < 6
    collect(Words(), PROMPTS, K, opened(path), chunk=CHUNK)
    whole = RolloutStore.existing(alone).read().drop_columns("length")
    assert RolloutStore.existing(path).read().equals(whole)


def die(made, part):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_chunk_that_kills_every_worker_is_given_up(cluster):
    """After one death, which is the same count as after the four that are the rule, and sooner."""
    assert Task("", dict, lambda made: None, die).tries == 4
    task = Task("policy 'deadly'", dict, lambda made: None, die, tries=1)
    with pytest.raises(ChildProcessError, match=r"1 workers died .* chunk of policy 'deadly'"):
        list(results(task, [0], Workers(1)))


def test_another_policy_in_the_workers_is_refused(cluster, tmp_path):
    store = opened(tmp_path / "s")
    other = dataclasses.replace(Words(), fingerprint="weights-2")
    with pytest.raises(ValueError, match="'weights-1' there and 'weights-2' here"):
        rollout(Words(), PROMPTS, K, store, workers=Workers(1), make=lambda: other)
    assert list(contents(tmp_path / "s")) == ["store.json"]


def test_a_second_writer_is_refused(tmp_path):
    collect(Words(), PROMPTS, K, opened(tmp_path / "s"))
    with opened(tmp_path / "s").writing():
        with pytest.raises(BlockingIOError, match="another run"):
            rollout(Words(), PROMPTS, K + 1, opened(tmp_path / "s"))
        with pytest.raises(BlockingIOError, match="another run"):
            reward(opened(tmp_path / "s"), Length(), PROMPTS)


def test_what_cannot_be_sent_says_what_to_give_instead(cluster, tmp_path):
    policy = Words()
    policy.lock = threading.Lock()
    with pytest.raises(ValueError, match="Give `make=`"):
        rollout(policy, PROMPTS, K, opened(tmp_path / "s"))
