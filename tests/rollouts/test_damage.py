"""Damage: noticed, set aside, made again."""

import pytest
from small_store import CHUNK, PROMPTS, FakeSampler, K, Length, collected, contents, shards

from infalign.rollouts import RolloutStore, collect, score

DAMAGES = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "a bit flipped in the rows": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "a bit flipped in the footer": lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
}


@pytest.mark.filterwarnings("ignore:.*a rollout whose reward it holds is gone")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("folder", ["rollouts", "rewards"])
def test_a_damaged_shard_is_set_aside_and_made_again(tmp_path, uninterrupted, folder, damage):
    path = tmp_path / "s"
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    shard = shards(path, folder)[1]
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    with pytest.warns(UserWarning, match=f"{shard.name} was set aside"):
        store = RolloutStore.existing(path)
    with pytest.raises(ValueError, match=r"0 .* of prompt .* 4 are needed"):
        store.rewards("length", PROMPTS, K)
    score(collected(path), Length(), PROMPTS, chunk=CHUNK)
    rest = {k: v for k, v in contents(path).items() if not k.startswith("damaged")}
    assert rest == uninterrupted
    assert any((path / "damaged").iterdir())


def test_rewards_never_outlive_their_rollouts(tmp_path):
    store = collected(tmp_path / "s")
    score(store, Length(), PROMPTS, chunk=len(PROMPTS))
    shards(tmp_path / "s")[0].unlink()
    with pytest.warns(UserWarning, match="a rollout whose reward it holds is gone"):
        store = RolloutStore.existing(tmp_path / "s")
    assert store.reward_names == ()


def test_two_shards_for_one_rollout_are_refused(tmp_path):
    store = collected(tmp_path / "s")
    collected(tmp_path / "other", k=2)
    other = shards(tmp_path / "other")[0]
    (tmp_path / "s" / "rollouts" / other.name).write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="stands in two shards"):
        RolloutStore.existing(store.path)


def test_leftovers_of_a_dead_writer_are_cleared(tmp_path):
    store = collected(tmp_path / "s")
    leftover = tmp_path / "s" / "partial" / "half.parquet.123"
    leftover.write_bytes(b"PAR1")
    assert len(RolloutStore.existing(tmp_path / "s").prompt_ids) == len(PROMPTS)
    assert leftover.exists()  # a reader leaves the writer's files alone
    collect(FakeSampler(), PROMPTS, K, store, chunk=CHUNK)
    assert not leftover.exists()
