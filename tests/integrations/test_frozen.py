"""A frozen reward: the same bits as the reward it was made from, refused when anything is off."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from infalign.integrations.freezing import freeze
from infalign.integrations.frozen import FrozenReward
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Exponential, Identity
from infalign.training import CalibratedReward

STEEP = Exponential(5.0)
IDS, TEXTS = ("b", "ä", "a"), ("Second?", "Umlaut?", "First?")


class Length:
    """Ties often: the length of the response, with a term of the prompt."""

    name = "length"

    def __call__(self, prompts, responses):
        rows = zip(prompts, responses, strict=True)
        return np.array([[len(r) + len(p) / 7 for r in row] for p, row in rows])


def facts(**changes):
    sampling = {"temperature": 1.0, "max_new_tokens": 8, "stop": ["\n"]}
    policy = {"name": "tiny", "fingerprint": "0"}
    return {
        "k": 6,
        "beta": 0.5,
        "reward": {"name": "length"},
        "transform": "exp(5u)",
        "procedure": "best-of-4",
        "policy": policy,
        "sampling": sampling,
        "end_marks": ["</s>"],
    } | changes


@pytest.fixture
def rewards():
    rng = np.random.default_rng(0)
    return rng.integers(0, 5, (3, 6)) + np.array([[len(text) / 7] for text in TEXTS])


def frozen_at(folder, rewards, transform=STEEP, **changes):
    return freeze(
        folder,
        prompt_ids=IDS,
        prompts=TEXTS,
        reference_rewards=rewards,
        rank_means=transform.rank_means(rewards.shape[1]),
        facts=facts(**changes),
    )


def test_it_gives_the_bits_of_the_reward_it_was_made_from(tmp_path, rewards):
    ours = CalibratedReward(Length(), EmpiricalCalibration(IDS, rewards), STEEP)
    frozen = FrozenReward.load(frozen_at(tmp_path / "f", rewards), Length())
    ids = ["ä", "a", "b", "ä", "a"]
    answers = ["", "abc\nrest", "abcd</s>", "xy", "grüße"]
    found = frozen.score(ids, answers)
    texts = [[text] for text in ("", "abc", "abcd", "xy", "grüße")]
    prompts = [TEXTS[IDS.index(prompt_id)] for prompt_id in ids]
    expected = ours.score(ids, prompts, texts)
    for name in ("training_rewards", "rewards", "quantiles"):
        assert getattr(found, name).tobytes() == getattr(expected, name)[:, 0].tobytes()
    assert frozen.prompts_of(ids) == prompts
    assert frozen.prompt_ids == ["a", "b", "ä"]


def test_another_transform_is_told_apart(tmp_path, rewards):
    """Negative control of the comparison above."""
    one = FrozenReward.load(frozen_at(tmp_path / "1", rewards), Length())
    other = FrozenReward.load(frozen_at(tmp_path / "2", rewards, Identity()), Length())
    given = ["a", "b"], ["abc", "x"]
    assert (one.score(*given).training_rewards != other.score(*given).training_rewards).all()


def test_it_survives_pickling_and_freezing_twice(tmp_path, rewards):
    folder = frozen_at(tmp_path / "f", rewards)
    assert frozen_at(tmp_path / "f", rewards) == folder
    copy = pickle.loads(pickle.dumps(FrozenReward.load(folder)))
    assert copy.facts == FrozenReward.load(folder).facts


def test_a_recorded_function_is_found_by_name(tmp_path, rewards, monkeypatch):
    (tmp_path / "shortness.py").write_text(
        "def shortness(prompts, responses):\n"
        "    return [[-len(response) for response in row] for row in responses]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    section = {"kind": "callable", "function": "shortness:shortness"}
    folder = frozen_at(tmp_path / "f", rewards, reward={"name": "shortness", "section": section})
    assert FrozenReward.load(folder).score(["a"], ["four"]).rewards.tolist() == [-4.0]


@pytest.mark.parametrize("file", ["reference_rewards.npy", "rank_means.npy", "prompts.arrow"])
def test_a_damaged_or_missing_file_is_noticed(tmp_path, rewards, file):
    path = frozen_at(tmp_path / "f", rewards) / file
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="digest differs"):
        FrozenReward.load(tmp_path / "f")
    path.unlink()
    with pytest.raises(ValueError, match=f"lacks {file}"):
        FrozenReward.load(tmp_path / "f")


def test_refusals_say_what_to_do(tmp_path, rewards):
    with pytest.raises(FileNotFoundError, match="infalign export"):
        FrozenReward.load(tmp_path / "nothing")
    frozen = FrozenReward.load(frozen_at(tmp_path / "f", rewards), Length())
    with pytest.raises(ValueError, match=r"'c' has no reference rewards.*by their prompt_id"):
        frozen.score(["a", "c"], ["x", "y"])
    with pytest.raises(ValueError, match="'zz' has no reference rewards"):
        frozen.rows_of(["zz"])
    with pytest.raises(ValueError, match="is nan for a response to prompt 'b'"):
        frozen.calibrate(["a", "b"], [1.0, np.nan])
    with pytest.raises(ValueError, match="pass it: load"):
        FrozenReward.load(tmp_path / "f").score(["a"], ["x"])
    with pytest.raises(ValueError, match="differs in beta"):
        frozen_at(tmp_path / "f", rewards, beta=1.0)
    with pytest.raises(ValueError, match="beta is 0"):
        frozen_at(tmp_path / "g", rewards, beta=0)
    with pytest.raises(ValueError, match=r"returned shape \(1, 2\)"):
        FrozenReward.load(tmp_path / "f", lambda p, r: [[1.0, 2.0]]).score(["a"], ["x"])
    assert not list(tmp_path.glob(".*")), "an unfinished folder was left behind"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_place_that_is_taken_is_named_and_left_alone(tmp_path, rewards, what):
    place = tmp_path / "frozen"
    if what == "folder":
        place.mkdir()
        (place / "rank_means.npy").write_bytes(b"half a copy")
    else:
        place.write_bytes(b"half a copy")
    with pytest.raises(
        FileExistsError, match=r"holds no frozen.json .* Delete or move it"
    ) as error:
        frozen_at(place, rewards)
    assert error.value.filename == str(place)
    assert list(tmp_path.rglob("*")) == [place, *(tmp_path.glob("frozen/rank_means.npy"))]
    place.unlink() if what == "file" else (place / "rank_means.npy").unlink()
    assert frozen_at(place, rewards) == place  # an empty folder is as good as none


def test_who_froze_the_same_meanwhile_is_no_obstacle(tmp_path, rewards, monkeypatch):
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 1:
            frozen_at(tmp_path / "f", rewards)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    assert frozen_at(tmp_path / "f", rewards) == tmp_path / "f"
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_everything_is_flushed_before_the_folder_is_there_and_the_parent_after(
    tmp_path, rewards, monkeypatch
):
    done, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor):
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("replaced"), replace(*a)))
    folder = frozen_at(tmp_path / "f", rewards)
    at = done.index("replaced")
    assert {file.name for file in folder.iterdir()} < set(done[:at])
    assert done[at + 1 :] == [tmp_path.name]


def test_a_later_format_is_refused(tmp_path, rewards):
    file = frozen_at(tmp_path / "f", rewards) / "frozen.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))
    with pytest.raises(ValueError, match="says format 2"):
        FrozenReward.load(tmp_path / "f")
