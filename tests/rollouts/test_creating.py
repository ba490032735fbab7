"""Creating: of several runs that make one store, the first decides whose it is."""

import contextlib
import json
import threading

import pytest
from small_store import PROMPTS, FakeSampler, K, collected, contents

from infalign.rollouts import RolloutStore, collect, identity


def test_who_comes_between_look_and_write_keeps_the_store(tmp_path, monkeypatch):
    make_folder, made = identity.make_folder, []

    def interrupted(folder):
        """The other run saw no store; now this one makes and fills it."""
        monkeypatch.setattr(identity, "make_folder", make_folder)
        collected(folder)
        made.append(contents(folder))

    monkeypatch.setattr(identity, "make_folder", interrupted)
    with pytest.raises(ValueError, match="fingerprint is 'weights-1' there and 'weights-2' here"):
        RolloutStore.open(tmp_path / "s", FakeSampler("weights-2"), seed=7)
    assert made == [contents(tmp_path / "s")]


def test_who_comes_late_does_not_wait_for_the_writer(tmp_path, monkeypatch):
    make_folder = identity.make_folder
    with contextlib.ExitStack() as stack:

        def interrupted(folder):
            monkeypatch.setattr(identity, "make_folder", make_folder)
            stack.enter_context(RolloutStore.open(folder, FakeSampler(), seed=7).writing())

        monkeypatch.setattr(identity, "make_folder", interrupted)
        store = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
        with pytest.raises(BlockingIOError, match="being written by another run"):
            collect(FakeSampler(), PROMPTS, K, store)


def test_of_many_at_once_one_wins(tmp_path):
    start, outcomes = threading.Barrier(8), []

    def run(number):
        start.wait()
        try:
            RolloutStore.open(tmp_path / "s", FakeSampler(f"weights-{number}"), seed=7)
            outcomes.append(f"weights-{number}")
        except ValueError:
            outcomes.append(None)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [outcome for outcome in outcomes if outcome]
    assert len(outcomes) == 8
    assert won == [json.loads((tmp_path / "s" / "store.json").read_text())["fingerprint"]]


def test_a_store_that_became_another_s_is_not_written(tmp_path):
    early = RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
    (tmp_path / "s" / "store.json").unlink()
    RolloutStore.open(tmp_path / "s", FakeSampler("weights-2"), seed=7)
    with pytest.raises(ValueError, match="'weights-2' there and 'weights-1' here"):
        collect(FakeSampler(), PROMPTS, K, early)
    assert list(contents(tmp_path / "s")) == ["store.json"]
    with RolloutStore.open(tmp_path / "s", FakeSampler("weights-2"), seed=7).writing():
        pass  # the refused one let go of the lock


def test_a_lock_that_is_held_without_identity_is_refused_at_last(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "PATIENCE", 2)
    with RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7).writing():
        (tmp_path / "s" / "store.json").unlink()
        with pytest.raises(BlockingIOError, match=r"no store.json, but another run holds its lock"):
            RolloutStore.open(tmp_path / "s", FakeSampler(), seed=7)
