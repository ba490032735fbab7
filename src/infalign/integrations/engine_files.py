"""What an export to any engine needs: the reward opened and checked, rows, scripts, refusals.

An engine with its own launcher gets a folder: dataset rows, a `reward.py` that checks everything
while it is imported, and a script with the exact configuration. Like the reward itself this module
needs numpy and pyarrow alone.
"""

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from infalign.integrations.frozen import MEANS, FrozenReward, RewardFunction, is_exact_stop

__all__ = ["Asked", "Batches", "Export", "Row", "opened", "prepared", "reward_file", "write_folder"]

FROZEN_VARIABLE = "INFALIGN_FROZEN"
"""Environment variable that says where the frozen reward lies, if not where it was exported."""


class Asked(Protocol):
    """A prompt: its id, and its text as the reference was asked with it."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt as an engine must see it."""

    prompt_id: str
    """What the reward finds its reference rewards by."""
    context: str
    """The whole text the policy is conditioned on, special tokens written out."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """How much an engine samples for one update."""

    prompts: int = 32
    """Prompts per update. ≥ 1, at most as many as there are."""
    samples: int = 8
    """Responses to each; each is judged against the others. ≥ 2."""
    epochs: int = 1
    """Times every prompt is visited. ≥ 1."""

    def __post_init__(self) -> None:
        for name, least in (("prompts", 1), ("samples", 2), ("epochs", 1)):
            if getattr(self, name) < least:
                why = ", because the baseline is the mean of the others" if least == 2 else ""
                raise ValueError(f"{name} is {getattr(self, name)}; at least {least}{why}.")

    def check(self, rows: Sequence[Any]) -> None:
        """Refuse an update of more prompts than there are: an engine would make none at all."""
        if self.prompts > len(rows):
            raise ValueError(
                f"{self.prompts} prompts per update of {len(rows)} prompts; engines drop an "
                f"incomplete batch and would never update. Give at most {len(rows)}."
            )


def opened(
    folder: str | Path, reward: RewardFunction | None = None, digest: str | None = None
) -> FrozenReward:
    """A frozen reward, with everything that could fail later made to fail now.

    Args:
        folder: the frozen reward.
        reward: asked instead of the recorded one.
        digest: SHA-256 of the `frozen.json` that a script's β and sampling were written for.

    Raises:
        FileNotFoundError: no frozen reward is there.
        ValueError: it is damaged, another one, its parts do not fit, or its reward cannot be made.
        ImportError: its reward needs a package that is not installed.
    """
    frozen = FrozenReward.load(folder, reward)
    found = frozen.digest
    if digest is not None and found != digest:
        raise ValueError(
            f"{frozen.folder} holds another frozen reward (digest {found[:12]}...) than the one "
            f"this was exported for ({digest[:12]}...); the script's β and sampling belong to that "
            "one. Export again, or put the right folder there."
        )
    _refuse_misfit(frozen)
    _ = frozen.reward  # made now: some engines only log what fails later
    frozen.prompts_of(frozen.prompt_ids[:1])
    return frozen


def rows_of(
    frozen: FrozenReward, prompts: Sequence[Asked], context: Callable[[str], str]
) -> list[Row]:
    """The rows of a dataset, each prompt known and asked as the reference was.

    Args:
        frozen: whose prompts they must be.
        prompts: distinct, at least one.
        context: prompt text → the text whose tokens, with none added, the reference was conditioned
            on. Engines add none; what a tokenizer adds by itself must be written out here.
    """
    if not prompts:
        raise ValueError("no prompts came; give those that the policy is to be trained on.")
    ids = [prompt.id for prompt in prompts]
    if len(set(ids)) < len(ids):
        repeated = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"prompt {repeated!r} is repeated; give each prompt once.")
    for prompt, known in zip(prompts, frozen.prompts_of(ids), strict=True):
        if prompt.text != known:
            raise ValueError(
                f"prompt {prompt.id!r} ends in {prompt.text[-60:]!r}, but reference and reward "
                f"were asked with one that ends in {known[-60:]!r}. Rendered by another chat "
                "template it is another prompt: use the template of the stored rollouts."
            )
    return [Row(prompt.id, context(prompt.text)) for prompt in prompts]


def refuse_settings(frozen: FrozenReward, engine: str) -> None:
    """Refuse what an engine cannot be told, or what would make the theory wrong in it."""
    if not (frozen.beta > 0 and math.isfinite(frozen.beta)):
        raise ValueError(
            f"beta is {frozen.beta}; it must be > 0 and finite: without a KL penalty the optimum "
            "is one answer, whatever the transform."
        )
    if frozen.facts["reward"].get("section") is None:
        raise ValueError(
            f"reward {frozen.name!r} is recorded by its name alone, so {engine} could not make it. "
            "Use a reward that an experiment file can name, as `kind: callable` with "
            "`function: module:function`."
        )
    refuse_sampling(frozen.facts["sampling"], engine)


def model_of(frozen: FrozenReward, model: str | None) -> str:
    """The weights that training starts from: those given, or the reference's as recorded."""
    found = model or frozen.facts["policy"].get("model")
    if not found:
        raise ValueError(
            f"{frozen.folder} records no model of the reference, and none came; give `model`, the "
            "path or name of the weights that the stored rollouts were sampled from."
        )
    return found


def longest_prompt(rows: Sequence[Row], prompt_tokens: int | None) -> int:
    """Tokens to reserve for a prompt; unless given, its bytes, which are never fewer."""
    if prompt_tokens is None:
        return max(len(row.context.encode()) for row in rows)
    if prompt_tokens < 1:
        raise ValueError(f"prompt_tokens is {prompt_tokens}; give the longest prompt's tokens.")
    return prompt_tokens


@dataclasses.dataclass(frozen=True)
class Export:
    """What is written for an engine, checked."""

    frozen: FrozenReward
    rows: list[Row]
    batches: Batches
    prompt_tokens: int
    """Reserved for a prompt."""
    model: str
    """Path or name of the weights to start from."""


def prepared(
    engine: str,
    frozen_folder: str | Path,
    prompts: Sequence[Asked],
    model: str | None,
    batches: Batches | None,
    context: Callable[[str], str],
    prompt_tokens: int | None,
) -> Export:
    """All that engines with a launcher of their own have in common; see `verl.write_verl`."""
    frozen, batches = FrozenReward.load(frozen_folder), batches or Batches()
    refuse_settings(frozen, engine)
    rows = rows_of(frozen, prompts, context)
    batches.check(rows)
    longest = longest_prompt(rows, prompt_tokens)
    return Export(frozen, rows, batches, longest, model_of(frozen, model))


def reward_file(
    engine: str, name: str, frozen: FrozenReward, folder: Path, **options: Any
) -> bytes:
    """`reward.py`: loads the frozen reward while it is imported, so that a misfit stops the engine.

    Args:
        engine: module of `infalign.integrations`.
        name: what the engine looks for in the file.
        frozen: found relative to the file, so that both can be moved together.
        folder: where the file will lie.
        options: more keywords of the module's `load`.
    """
    more = "".join(f"\n    {key}={value!r}," for key, value in options.items())
    relative = os.path.relpath(frozen.folder, folder.absolute())
    return f'''"""Training reward {json.dumps(frozen.name)}; importing this checks all of it.

{FROZEN_VARIABLE} says where the frozen reward lies, if not where it was exported to.
"""

import os
from pathlib import Path

from infalign.integrations.{engine} import load

HERE = Path(__file__).resolve().parent
{name} = load(
    os.environ.get("{FROZEN_VARIABLE}") or HERE / {json.dumps(relative)},
    digest="{frozen.digest}",{more}
)
'''.encode()


def write_folder(folder: str | Path, files: Mapping[str, bytes]) -> Path:
    """Write all files or none; a folder that holds them already is left as it is.

    Raises:
        ValueError: the folder holds something else.
    """
    folder = Path(folder).absolute()
    if folder.exists() and any(folder.iterdir()):
        differing = [n for n, data in files.items() if _content(folder / n) != data]
        if differing:
            raise ValueError(
                f"{folder} holds something else already ({', '.join(differing)} would differ). "
                "Choose another folder, or delete this one."
            )
        return folder
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    try:
        for name, data in files.items():
            (unfinished / name).write_bytes(data)
            if name.endswith(".sh"):
                (unfinished / name).chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _refuse_misfit(frozen: FrozenReward) -> None:
    rewards, means = frozen.reference_rewards, np.load(frozen.folder / MEANS)
    rows, k = len(frozen.prompt_ids), frozen.facts["k"]
    if rewards.shape != (rows, k) or means.shape != (k + 1,) or rows == 0:
        raise ValueError(
            f"{frozen.folder} holds {rows} prompts, reference rewards of shape {rewards.shape} and "
            f"{means.shape} training rewards for K = {k}: store and transform do not fit. Export "
            "the reward again."
        )
    falls = -1e-9 * float(means[-1] - means[0])  # less is rounding, at ranks a steep Φ ignores
    if not (np.isfinite(means).all() and falls < 0 and np.all(np.diff(means) >= falls)):
        raise ValueError(
            f"the training rewards in {frozen.folder / MEANS} are not finite and increasing with "
            "rank, as a transform's are. Export the reward again."
        )


def refuse_sampling(sampling: Mapping[str, Any], engine: str) -> None:
    """Refuse a sampling law that an engine cannot be told."""
    neutral = {"top_p": (None, 1, 1.0), "top_k": (None, 0, -1), "min_p": (None, 0, 0.0)}
    for option, value in sampling.items():
        if option in ("temperature", "max_new_tokens", "stop"):
            continue
        if value not in neutral.get(option, (None,)):
            raise ValueError(
                f"the stored rollouts were sampled with {option}={value!r}; {engine} takes its "
                "log-probabilities under the full vocabulary, so KL would be against another "
                f"reference. Sample the rollouts without {option}."
            )
    for stop in sampling["stop"]:
        if not is_exact_stop(stop):
            raise ValueError(
                f"the stored rollouts stop at {stop!r}; {engine} cannot stop at strings, so the "
                "reward would cut the text there. That is the same law only for a single ASCII "
                "character: a longer string can be spelt by tokens of which none contains it, at "
                "which the stored responses went on. Sample with other stop strings, or with none."
            )
