"""A calibrated reward inside OpenRLHF: its Python reward function, dataset and command.

Made for and checked against OpenRLHF 0.11.2. OpenRLHF imports `reward.py` in every rollout worker
and asks its `reward_func` for one response at a time, in threads. It only logs what goes wrong in
there, so everything that can be checked is checked while the file is imported. torch is imported
with the first answer, because the contract wants tensors; nothing of OpenRLHF is imported.
"""

import json
import logging
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from infalign.integrations.decoding import Sampled, drops_space, refuse_other_texts
from infalign.integrations.engine_files import (
    Asked,
    Batches,
    Export,
    Row,
    opened,
    prepared,
    reward_file,
    write_folder,
)
from infalign.integrations.frozen import MEANS, FrozenReward, RewardFunction

__all__ = ["RewardFunc", "load", "settings", "write_openrlhf"]

VERSION = "0.11.2"
"""The release whose sources the settings were checked against."""
_log = logging.getLogger("infalign")


@final
class RewardFunc:
    """OpenRLHF's reward function contract; safe in threads.

    Args:
        frozen: the reward.
        space_dropped: the stored texts lack the space that their first token began with.
    """

    def __init__(self, frozen: FrozenReward, space_dropped: bool = False) -> None:
        self.frozen, self.space_dropped = frozen, space_dropped

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Float64 tensors: `rewards` and `scores` Φ, `extra_logs` the raw reward and quantile.

        Args:
            queries: M texts, prompt and response with special tokens.
            prompts: the M prompts.
            labels: their prompt ids.
            kwargs: unused.

        Raises:
            ValueError: a query that does not begin with its prompt, a label that is no prompt id.
                Logged as an error too, because OpenRLHF mentions it in passing.
        """
        import torch

        try:
            completions = [self.completion(*pair) for pair in zip(queries, prompts, strict=True)]
            scored = self.frozen.score(_ids(labels), completions)
        except Exception as error:
            _log.error("no training reward: %s", error)
            raise
        rewards = torch.from_numpy(np.ascontiguousarray(scored.training_rewards))
        logs = {
            "raw_reward": torch.from_numpy(np.ascontiguousarray(scored.rewards)),
            "quantile": torch.from_numpy(np.ascontiguousarray(scored.quantiles)),
        }
        return {"rewards": rewards, "scores": rewards.clone(), "extra_logs": logs}

    def completion(self, query: str, prompt: str) -> str:
        """What follows the prompt in a query, as it reads when it is decoded alone.

        OpenRLHF decodes prompt and response together; SentencePiece's tokenizers then keep the
        space that they drop at the beginning of a text.

        Raises:
            ValueError: the query does not begin with the prompt.
        """
        completion = _completion(query, prompt)
        if not self.space_dropped:
            return completion
        # Special tokens first: no reader sees them, so the space may come behind one.
        return self.frozen.text_of(completion).removeprefix(" ")


def load(
    folder: str | Path,
    reward: RewardFunction | None = None,
    *,
    digest: str | None = None,
    space_dropped: bool = False,
) -> RewardFunc:
    """OpenRLHF's `reward_func` from a frozen reward; fails here, not in training.

    Args:
        folder: the frozen reward.
        reward: asked instead of the recorded one; called from several threads at once.
        digest: SHA-256 of the `frozen.json` that the script was written for.
        space_dropped: see :class:`RewardFunc`.

    Raises:
        FileNotFoundError, ValueError, ImportError: see `engine_files.opened`; and ValueError if
            nothing is known to end a text.
    """
    frozen = opened(folder, reward, digest)
    if not frozen.facts["end_marks"]:
        raise ValueError(
            f"{frozen.folder} records no end_marks, and OpenRLHF hands over responses with the "
            "special token that ends them, so each would be scored with it. Export again from a "
            "policy whose end-of-text tokens are known."
        )
    return RewardFunc(frozen, space_dropped)


def write_openrlhf(
    frozen_folder: str | Path,
    prompts: Sequence[Asked],
    folder: str | Path,
    *,
    model: str | None = None,
    batches: Batches | None = None,
    context: Callable[[str], str] = str,
    prompt_tokens: int | None = None,
    tokenizer: Any = None,
    sampled: Sequence[Sampled] = (),
) -> Path:
    """Write `train.jsonl`, `reward.py` and `openrlhf.sh` for training on a frozen reward.

    Args:
        frozen_folder: the frozen reward; found from `reward.py` by its relative place.
        prompts: to train on, rendered as they were for the reference.
        folder: made; one that holds the same export is left as it is.
        model: path or name of the weights to start from; by default the recorded reference's.
        batches: the size of an update.
        context: prompt text → the text whose tokens alone the reference was conditioned on; needed
            where its tokenizer adds tokens, such as the beginning of a text.
        prompt_tokens: of the longest prompt; by default its bytes.
        tokenizer: as OpenRLHF loads it, if any `sampled` are given.
        sampled: stored responses, which must be read as they are stored.

    Raises:
        ValueError: a setting OpenRLHF cannot express or that breaks the theory, prompts that do not
            fit the frozen reward, a response that OpenRLHF reads otherwise, or a folder that holds
            something else.
    """
    export = prepared("OpenRLHF", frozen_folder, prompts, model, batches, context, prompt_tokens)
    frozen, folder = export.frozen, Path(folder)
    options = {"space_dropped": True} if _checked_space(export, tokenizer, sampled) else {}
    asked = settings(frozen, export.batches, export.prompt_tokens)
    files = {
        "train.jsonl": _jsonl(export.rows),
        "reward.py": reward_file("openrlhf", "reward_func", frozen, folder, **options),
        "openrlhf.sh": _script(asked, export.model).encode(),
    }
    return write_folder(folder, files)


def _checked_space(export: Export, tokenizer: Any, sampled: Sequence[Sampled]) -> bool:
    """Whether a response's leading space is to be dropped, as it is in the stored texts; with that
    done, all of them are read as they are stored."""
    contexts = {row.prompt_id: row.context for row in export.rows}
    known = [one for one in sampled if one.prompt_id in contexts]
    if not known:
        return False

    def ids(prompt_id: str) -> list[int]:
        return tokenizer(text=contexts[prompt_id], add_special_tokens=False)["input_ids"]

    reward = RewardFunc(export.frozen, drops_space(tokenizer, ids(known[0].prompt_id), known))

    def read(one: Sampled) -> str:
        query = tokenizer.decode([*ids(one.prompt_id), *one.token_ids], skip_special_tokens=False)
        return export.frozen.text_of(reward.completion(query, contexts[one.prompt_id]))

    refuse_other_texts("OpenRLHF", known, read)
    return reward.space_dropped


def settings(frozen: FrozenReward, batches: Batches, prompt_tokens: int) -> dict[str, Any]:
    """OpenRLHF's options for max E[Φ] − β·KL; what is ours alone, not its speed."""
    sampling, bound = frozen.facts["sampling"], _advantage_bound(frozen)
    return {
        # E[Φ] − β·KL: leave-one-out baseline of Φ, k1 of what is still to come from each token on.
        "--algo.advantage.estimator": "rloo",
        "--algo.advantage.gamma": 1,
        "--algo.kl.init_coef": frozen.beta,
        "--algo.kl.estimator": "k1",
        # Clips Φ minus its baseline; no such difference is larger than this.
        "--reward.clip_range": (-bound, bound),
        # One on-policy step per batch.
        "--actor.policy_loss_type": "ppo",
        "--actor.loss_agg_mode": "token-mean",
        "--train.max_epochs": 1,
        "--train.num_episodes": batches.epochs,
        "--rollout.batch_size": batches.prompts,
        "--rollout.n_samples_per_prompt": batches.samples,
        "--train.batch_size": batches.prompts * batches.samples,
        # The sampling law of the stored rollouts.
        "--rollout.temperature": sampling["temperature"],
        "--rollout.top_p": 1.0,
        "--rollout.max_new_tokens": sampling["max_new_tokens"],
        "--data.max_len": prompt_tokens + sampling["max_new_tokens"],
        # Prompts as they are; the label is the one thing that reaches the reward.
        "--data.prompt_split": "train",
        "--data.input_key": "prompt",
        "--data.label_key": "prompt_id",
    }


def _advantage_bound(frozen: FrozenReward) -> int:
    """More than any Φ minus a mean of others; whole, because argparse refuses -1e6."""
    means = np.load(frozen.folder / MEANS)
    width = float(means[-1] - means[0])
    if not width < 1e30:
        raise ValueError(
            f"training rewards span {width:.3g}, which float32 advantages cannot carry. Use a "
            "transform that is less steep, or a larger KL coefficient."
        )
    return max(10, math.ceil(width) + 1)


def _completion(query: str, prompt: str) -> str:
    """What follows the prompt in a query, its special tokens still there."""
    if not query.startswith(prompt):
        raise ValueError(
            f"a query begins {query[:60]!r} and its prompt {prompt[:60]!r}, so the response in it "
            "cannot be told. OpenRLHF cut the prompt (raise --data.max_len), or decoding its "
            "tokens gives another text (export with the tokenizer's own rendering)."
        )
    return query[len(prompt) :]


def _ids(labels: Sequence[Any]) -> list[str]:
    wrong = [label for label in labels if not isinstance(label, str)]
    if wrong:
        raise ValueError(
            f"a label is {wrong[0]!r} ({type(wrong[0]).__name__}); it must be a prompt id. Train "
            "on the exported train.jsonl with --data.label_key prompt_id."
        )
    return list(labels)


def _jsonl(rows: Sequence[Row]) -> bytes:
    lines = [
        json.dumps({"prompt": row.context, "prompt_id": row.prompt_id}, ensure_ascii=False)
        for row in rows
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _script(asked: Mapping[str, Any], model: str) -> str:
    lines = [
        f"--actor.model_name_or_path {shlex.quote(model)}",
        '--data.prompt_dataset "$here/train.jsonl"',
        '--reward.remote_url "$here/reward.py"',
        *(f"{option} {_words(value)}" for option, value in asked.items()),
    ]
    return _HEAD + "".join(f"  {line} \\\n" for line in lines) + '  "$@"\n'


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


_HEAD = f"""#!/usr/bin/env bash
# Trains on the calibrated reward with OpenRLHF {VERSION}. What is set here is what the theory
# needs; speed is yours and comes after the script's name, for example:
#   ./openrlhf.sh --train.colocate_all --vllm.num_engines 8 --vllm.gpu_memory_utilization 0.5 \\
#     --vllm.enable_sleep --ds.enable_sleep --ds.zero_stage 3 --actor.adam.lr 1e-6
set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
exec python3 -m openrlhf.cli.train_ppo_ray \\
"""
