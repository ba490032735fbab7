"""A calibrated, transformed reward frozen in a folder, for engines that train elsewhere.

Engines pin versions that exclude each other, so what crosses over is a folder of numbers and this
module, which needs numpy and pyarrow and nothing else. At finite K the whole reward is the K sorted
reference rewards of each prompt and a table of K + 1 training rewards, one per rank. The arrays are
memory-mapped: the ranks of one machine share them, and opening costs the same at any size.

`frozen.json` says what it was made from and carries the digests of the other files, so that half a
copy is noticed when an engine starts, not when its curves look odd.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from infalign.quantile.ranks import count_ranks, posterior_means, quantiles

__all__ = ["Calibrated", "FrozenReward", "RewardFunction"]

FORMAT = 1
FACTS = "frozen.json"
REWARDS, MEANS, IDS = "reference_rewards.npy", "rank_means.npy", "prompt_ids.npy"
PROMPTS = "prompts.arrow"
NEEDED = ("k", "beta", "reward", "transform", "procedure", "policy", "sampling", "end_marks")
"""Facts that must be given; see :func:`infalign.integrations.freezing.freeze`."""

RewardFunction = Callable[[Sequence[str], Sequence[Sequence[str]]], Any]
"""(P prompts, P lists of K responses) → P × K numbers, higher better."""


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """M responses, one each to M prompts."""

    training_rewards: np.ndarray
    """Φ̄ of the rank: what the engine maximises. Dimensionless, float64."""
    rewards: np.ndarray
    """r, the reward's own unit."""
    quantiles: np.ndarray
    """u in [0, 1], ties half."""


@final
class FrozenReward:
    """(prompt id, response) → training reward, from a folder of `freezing.freeze`."""

    def __init__(self, folder: Path, facts: dict[str, Any], reward: RewardFunction | None) -> None:
        """Map the arrays; use :meth:`load` instead."""
        self.folder, self.facts = folder, facts
        self._given = reward
        # Plain arrays over the mapped bytes: numpy's memmap class makes each small slice slower.
        self.reference_rewards = np.asarray(np.load(folder / REWARDS, mmap_mode="r"))
        self._ids = np.asarray(np.load(folder / IDS, mmap_mode="r"))
        self._means = np.load(folder / MEANS)

    @classmethod
    def load(
        cls, folder: str | Path, reward: RewardFunction | None = None, *, verify: bool = True
    ) -> "FrozenReward":
        """The reward frozen in a folder.

        Args:
            folder: written by `freezing.freeze`, say through `infalign export`.
            reward: asked instead of the recorded one; it must be the same reward.
            verify: read all bytes once and compare them with their digests.

        Raises:
            FileNotFoundError: there is no frozen reward.
            ValueError: it is damaged, incomplete, or of a later format.
        """
        folder = Path(folder).absolute()
        facts = read_facts(folder)
        for name, digest in facts["files"].items():
            if not (folder / name).exists():
                raise ValueError(f"{folder} lacks {name}; copy or export the whole folder again.")
            if verify and digest_of(folder / name) != digest:
                raise ValueError(
                    f"{folder / name} is not the file that was written (its digest differs). Copy "
                    "or export the folder again."
                )
        return cls(folder, facts, reward)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_loaded, (str(self.folder), self._given))

    @property
    def k(self) -> int:
        """Reference rewards per prompt."""
        return self.reference_rewards.shape[1]

    @property
    def beta(self) -> float:
        """KL coefficient, in training reward per nat."""
        return self.facts["beta"]

    @property
    def digest(self) -> str:
        """SHA-256 of `frozen.json`, which carries those of the other files."""
        return digest_of(self.folder / FACTS)

    @property
    def name(self) -> str:
        """The reward's name."""
        return self.facts["reward"]["name"]

    @property
    def prompt_ids(self) -> list[str]:
        """Ids of all prompts, sorted."""
        return [prompt_id.decode() for prompt_id in self._ids.tolist()]

    @cached_property
    def reward(self) -> RewardFunction:
        """What scores a text: the one given, or the one recorded.

        Raises:
            ImportError: the recorded one needs a package that is not installed.
            ValueError: it cannot be made from its record.
        """
        if self._given is not None:
            return self._given
        section = self.facts["reward"].get("section")
        if section is None:
            raise ValueError(
                f"{self.folder} records reward {self.name!r} by its name alone; pass it: "
                "load(folder, reward=function)."
            )
        from infalign.rewards.names import reward_from_name

        return reward_from_name(**section)

    def rows_of(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Row of each prompt.

        Raises:
            ValueError: naming a prompt that has no reference rewards.
        """
        wanted = np.array([prompt_id.encode() for prompt_id in prompt_ids], dtype=bytes)
        if not len(wanted):
            return np.empty(0, dtype=np.intp)
        rows = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        unknown = np.flatnonzero(self._ids[rows] != wanted)
        if len(unknown):
            raise ValueError(
                f"prompt {prompt_ids[unknown[0]]!r} has no reference rewards in {self.folder} "
                f"({len(unknown)} of {len(wanted)} are unknown; {len(self._ids)} are known). A "
                "reward is calibrated against the reference's on the same prompt: train on the "
                "prompts that were exported, by their prompt_id."
            )
        return rows

    def prompts_of(self, prompt_ids: Sequence[str]) -> list[str]:
        """The prompts' texts, as the reward was asked with them."""
        return self._texts_at(self.rows_of(prompt_ids))

    def text_of(self, completion: str) -> str:
        """What the reward sees of a completion: up to the first end mark or stop string.

        Engines hand over the text with special tokens or without; rewards never see them. A stop
        string of several characters that no single token holds is cut here too, though the
        reference would have gone on: give stop strings that are one token.
        """
        text = _until(completion, self.facts["end_marks"])
        for token in self.facts.get("special_tokens", ()):
            text = text.replace(token, "")
        return _until(text, self.facts["sampling"]["stop"])

    def calibrate(self, prompt_ids: Sequence[str], rewards: Any) -> Calibrated:
        """Training rewards of M rewards, one for each of M prompt ids.

        Raises:
            ValueError: an unknown prompt, another number of rewards, or one that is not finite.
        """
        values = np.asarray(rewards, dtype=np.float64).reshape(-1)
        if len(values) != len(prompt_ids):
            raise ValueError(f"{len(values)} rewards came with {len(prompt_ids)} prompt ids.")
        return self._calibrated(prompt_ids, self.rows_of(prompt_ids), values)

    def score(self, prompt_ids: Sequence[str], completions: Sequence[str]) -> Calibrated:
        """Training rewards of M completions, one to each of M prompts, in one call of the reward.

        Raises:
            ValueError: as :meth:`calibrate`, or a reward that returns another shape.
        """
        rows, prompts = self._asked(prompt_ids)
        texts = [[self.text_of(completion)] for completion in completions]
        rewards = np.asarray(self.reward(prompts, texts), dtype=np.float64)
        if rewards.shape != (len(rows), 1):
            raise ValueError(
                f"reward {self.name!r} returned shape {rewards.shape} for {len(rows)} prompts "
                f"with one response each; shape {(len(rows), 1)} is needed."
            )
        return self._calibrated(prompt_ids, rows, rewards[:, 0])

    def _calibrated(
        self, prompt_ids: Sequence[str], rows: np.ndarray, rewards: np.ndarray
    ) -> Calibrated:
        if not np.isfinite(rewards).all():
            bad = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise ValueError(
                f"reward {self.name!r} is {rewards[bad]} for a response to prompt "
                f"{prompt_ids[bad]!r}; a training reward must be finite. Repair the reward."
            )
        below, ties = count_ranks(self.reference_rewards, rows, rewards[:, None])
        below, ties = below[:, 0], ties[:, 0]
        training = posterior_means(self._means, below, ties)
        return Calibrated(training, rewards, quantiles(below, ties, self.k))

    def _asked(self, prompt_ids: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Rows and texts; engines that ask one response at a time repeat the same few prompts."""
        if len(prompt_ids) != 1:
            rows = self.rows_of(prompt_ids)
            return rows, self._texts_at(rows)
        row, text = self._one(prompt_ids[0])
        return np.array([row]), [text]

    @cached_property
    def _one(self) -> Callable[[str], tuple[int, str]]:
        @lru_cache(maxsize=4096)
        def row_and_text(prompt_id: str) -> tuple[int, str]:
            rows = self.rows_of([prompt_id])
            return int(rows[0]), self._texts_at(rows)[0]

        return row_and_text

    def _texts_at(self, rows: np.ndarray) -> list[str]:
        return self._texts.take(pa.array(rows)).to_pylist()

    @cached_property
    def _texts(self) -> pa.ChunkedArray:
        return pa.ipc.open_file(pa.memory_map(str(self.folder / PROMPTS))).read_all()["prompt"]


def _until(text: str, marks: Sequence[str]) -> str:
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    return text[: min(places)] if places else text


def read_facts(folder: Path) -> dict[str, Any]:
    """What `frozen.json` says, checked to be whole."""
    file = folder / FACTS
    if not file.exists():
        raise FileNotFoundError(
            f"{folder} holds no frozen reward: it has no {FACTS}. Make one: `infalign export`."
        )
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        lacking = {"format", "files", *NEEDED} - facts.keys()
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}). Export the reward again.") from error
    if lacking:
        raise ValueError(f"{file} is damaged: it lacks {sorted(lacking)}. Export it again.")
    if facts["format"] != FORMAT:
        raise ValueError(
            f"{file} says format {facts['format']}; this version reads format {FORMAT}. Use the "
            "version of infalign that wrote it, or export again."
        )
    return facts


def is_exact_stop(stop: str) -> bool:
    """Whether cutting a text at this stop string is the law that stopped at tokens containing it.

    A longer string can be spelt by tokens of which none contains it.
    """
    return len(stop) == 1 and stop.isascii()


def digest_of(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _loaded(folder: str, reward: RewardFunction | None) -> FrozenReward:
    return FrozenReward.load(folder, reward, verify=False)
