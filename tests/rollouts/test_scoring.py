"""Rewards: beside their rollouts, from one reward, whole or not at all."""

import numpy as np
import pytest
from small_store import CHUNK, PROMPTS, FakeSampler, K, Length, collected, shards

from infalign.rollouts import RolloutStore, collect, score


class Flawed(Length):
    """Right until it meets a certain prompt."""

    def __init__(self, flaw, at=PROMPTS[7].text):
        super().__init__(name="flawed")
        self.flaw, self.at = flaw, at

    def __call__(self, prompts, responses):
        values = super().__call__(prompts, responses)
        return self.flaw(values, prompts.index(self.at)) if self.at in prompts else values


def nan_at(values, index):
    values[index, 1] = np.nan
    return values


def raise_at(values, index):
    raise KeyError("no such word")


FLAWS = {
    "nan": (nan_at, "returned nan for the response '"),
    "infinite": (lambda v, i: nan_at(v, i) * np.inf, "returned .* for the response"),
    "raises": (raise_at, "KeyError: 'no such word'"),
    "too short": (lambda v, i: v[:, 1:], r"shape \(1, 3\); \(1, 4\) is needed"),
    "flat": (lambda v, i: v.ravel(), r"shape \(4,\); \(1, 4\) is needed"),
    "nothing": (lambda v, i: None, r"shape \(\); \(1, 4\)"),
    "text": (lambda v, i: "good", "could not convert string to float"),
    "ragged": (lambda v, i: [[1.0], [2.0, 3.0]], "inhomogeneous"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_reward_is_named_with_its_prompt_and_loses_nothing(tmp_path, flaw):
    change, message = FLAWS[flaw]
    store = collected(tmp_path / "s")
    named = rf"reward 'flawed' failed on prompt {PROMPTS[7].id} \('question 7'\).*{message}"
    with pytest.raises(ValueError, match=named):
        score(store, Flawed(change), PROMPTS, chunk=CHUNK)
    assert store.rewards("flawed", PROMPTS[:6]).shape == (6, K)
    score(store, Length(name="flawed"), PROMPTS, chunk=CHUNK)
    assert np.isfinite(store.rewards("flawed", PROMPTS)).all()
    assert len(store.responses(PROMPTS)) == len(PROMPTS)


def test_a_reward_that_fails_only_in_batches_is_named_too(tmp_path):
    class Batchless(Length):
        def __call__(self, prompts, responses):
            if len(prompts) > 1:
                raise MemoryError("too many")
            return super().__call__(prompts, responses)

    with pytest.raises(ValueError, match=r"'length' failed on 3 prompts together.*MemoryError"):
        score(collected(tmp_path / "s"), Batchless(), PROMPTS, chunk=CHUNK)


def test_new_rollouts_are_scored_and_old_ones_not_again(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS)
    first = store.rewards("length", PROMPTS)
    collect(FakeSampler(), PROMPTS, 6, store)
    with pytest.raises(ValueError, match="rewards of prompt"):
        store.rewards("length", PROMPTS, 6)

    class NewOnly(Length):
        def __call__(self, prompts, responses):
            assert {len(row) for row in responses} == {2}
            return super().__call__(prompts, responses)

    score(store, NewOnly(), PROMPTS)
    np.testing.assert_array_equal(store.rewards("length", PROMPTS)[:, :K], first)


def test_rewards_of_one_name_come_from_one_reward(tmp_path):
    class Fingerprinted(Length):
        fingerprint = "head-1"

    class Refitted(Length):
        fingerprint = "head-2"

    store = collected(tmp_path / "s")
    score(store, Fingerprinted(), PROMPTS[:5])
    score(store, Fingerprinted(), PROMPTS)
    store = RolloutStore.existing(store.path)
    for other in (Refitted(), Length()):
        with pytest.raises(ValueError, match=r"head-1 there.*length-\*\.parquet"):
            score(store, other, PROMPTS)
    for shard in shards(store.path, "rewards"):
        shard.unlink()
    score(store, Refitted(), PROMPTS)


@pytest.mark.parametrize("name", ["text", "sample", "reward", ""])
def test_a_reward_cannot_take_a_columns_name(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be named"):
        score(collected(tmp_path / "s"), Length(name=name), PROMPTS)


def test_scoring_needs_rollouts(tmp_path):
    store = collected(tmp_path / "s", prompts=PROMPTS[:3])
    with pytest.raises(ValueError, match=f"{PROMPTS[3].id} .* has no rollouts"):
        score(store, Length(), PROMPTS)
