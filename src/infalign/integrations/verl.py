"""A calibrated reward inside verl: its custom reward function, dataset and command.

Made for and checked against verl 0.9.1. verl imports `reward.py` in every reward worker and asks
its `compute_score` for one response at a time, in threads or in a pool of processes. Nothing of
verl, ray or torch is imported here.
"""

import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import pyarrow as pa
import pyarrow.parquet as pq

from infalign.integrations.decoding import Sampled, refuse_other_texts
from infalign.integrations.engine_files import (
    Asked,
    Batches,
    Row,
    opened,
    prepared,
    reward_file,
    write_folder,
)
from infalign.integrations.frozen import FrozenReward, RewardFunction

__all__ = ["ComputeScore", "load", "settings", "write_verl"]

VERSION = "0.9.1"
"""The release whose sources the settings were checked against."""
AS_IT_IS = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""A chat template that adds nothing: verl renders every prompt by some template."""


@final
class ComputeScore:
    """verl's reward function contract; safe in threads, and small when pickled.

    Args:
        frozen: the reward.
    """

    def __init__(self, frozen: FrozenReward) -> None:
        self.frozen = frozen

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, float]:
        """`score` is the training reward Φ; the rest is logged.

        The key `reward` is avoided: verl adds the score to its own list of that name and would
        append ours to it.

        Raises:
            ValueError: `extra_info` holds no `prompt_id`, or one without reference rewards.
        """
        prompt_id = (extra_info or {}).get("prompt_id")
        if not isinstance(prompt_id, str):
            raise ValueError(
                f"extra_info holds no prompt_id (it has {sorted(extra_info or {})}); train on the "
                "parquet file that was exported with this reward."
            )
        scored = self.frozen.score([prompt_id], [solution_str])
        return {
            "score": float(scored.training_rewards[0]),
            "raw_reward": float(scored.rewards[0]),
            "quantile": float(scored.quantiles[0]),
        }


def load(
    folder: str | Path, reward: RewardFunction | None = None, *, digest: str | None = None
) -> ComputeScore:
    """verl's `compute_score` from a frozen reward; fails here, not in training.

    Args:
        folder: the frozen reward.
        reward: asked instead of the recorded one; called from several threads at once.
        digest: SHA-256 of the `frozen.json` that the script was written for.

    Raises:
        FileNotFoundError, ValueError, ImportError: see `engine_files.opened`.
    """
    return ComputeScore(opened(folder, reward, digest))


def write_verl(
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
    """Write `train.parquet`, `reward.py` and `verl.sh` for training on a frozen reward.

    Args:
        frozen_folder: the frozen reward; found from `reward.py` by its relative place.
        prompts: to train on, rendered as they were for the reference.
        folder: made; one that holds the same export is left as it is.
        model: path or name of the weights to start from; by default the recorded reference's.
        batches: the size of an update.
        context: prompt text → the text whose tokens alone the reference was conditioned on; needed
            where its tokenizer adds tokens, such as the beginning of a text.
        prompt_tokens: of the longest prompt; by default its bytes.
        tokenizer: as verl loads it, if any `sampled` are given.
        sampled: stored responses, which must be read as they are stored.

    Raises:
        ValueError: a setting verl cannot express or that breaks the theory, prompts that do not fit
            the frozen reward, a response that verl reads otherwise, or a folder that holds
            something else.
    """
    export = prepared("verl", frozen_folder, prompts, model, batches, context, prompt_tokens)
    frozen, folder = export.frozen, Path(folder)

    def read(one: Sampled) -> str:
        return frozen.text_of(tokenizer.decode(list(one.token_ids), skip_special_tokens=True))

    refuse_other_texts("verl", sampled, read)
    asked = settings(frozen, export.batches, export.prompt_tokens)
    files = {
        "train.parquet": _parquet(export.rows),
        "reward.py": reward_file("verl", "compute_score", frozen, folder),
        "verl.sh": _script(asked, export.model).encode(),
    }
    return write_folder(folder, files)


def settings(frozen: FrozenReward, batches: Batches, prompt_tokens: int) -> dict[str, Any]:
    """verl's configuration for max E[Φ] − β·KL, key by key; what is ours alone, not its speed."""
    return {
        **_objective(frozen.beta),
        **_updates(batches),
        **_sampling_law(frozen.facts["sampling"], prompt_tokens),
        # The reward, and prompts as they are.
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.source": "register",
        "reward.reward_manager.name": "naive",
        "reward.reward_model.enable": False,
        "data.prompt_key": "prompt",
        "data.reward_fn_key": "data_source",
        # What verl has no default for, or one that needs more files; the user's to change.
        f"{_ROLLOUT}.name": "vllm",
        f"{_ACTOR}.use_dynamic_bsz": True,
        "trainer.val_before_train": False,
    }


_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def _objective(beta: float) -> dict[str, Any]:
    """E[Φ] − β·KL: k1 summed over the response, inside the reward, before the baseline."""
    return {
        "algorithm.adv_estimator": "rloo",
        "algorithm.use_kl_in_reward": True,
        "algorithm.kl_penalty": "kl",
        "algorithm.kl_ctrl.type": "fixed",
        "algorithm.kl_ctrl.kl_coef": beta,
        "algorithm.norm_adv_by_std_in_grpo": False,
        "algorithm.use_pf_ppo": False,
        "algorithm.filter_groups.enable": False,
        f"{_ACTOR}.use_kl_loss": False,
        f"{_ACTOR}.entropy_coeff": 0,
    }


def _updates(batches: Batches) -> dict[str, Any]:
    """One on-policy step per batch, along the gradient of a sum over each response."""
    return {
        f"{_ACTOR}.policy_loss.loss_mode": "vanilla",
        f"{_ACTOR}.loss_agg_mode": "seq-mean-token-sum",
        f"{_ACTOR}.ppo_epochs": 1,
        f"{_ACTOR}.ppo_mini_batch_size": batches.prompts,
        "data.train_batch_size": batches.prompts,
        f"{_ROLLOUT}.n": batches.samples,
        "trainer.total_epochs": batches.epochs,
    }


def _sampling_law(sampling: Mapping[str, Any], prompt_tokens: int) -> dict[str, Any]:
    """The law of the stored rollouts, with room for the longest prompt."""
    return {
        f"{_ROLLOUT}.temperature": sampling["temperature"],
        f"{_ROLLOUT}.top_p": 1.0,
        f"{_ROLLOUT}.top_k": -1,
        f"{_ROLLOUT}.do_sample": True,
        f"{_ROLLOUT}.ignore_eos": False,
        "data.max_response_length": sampling["max_new_tokens"],
        "data.max_prompt_length": prompt_tokens,
        "data.filter_overlong_prompts": False,
        "data.truncation": "error",
    }


def _parquet(rows: Sequence[Row]) -> bytes:
    """One row per prompt in verl's format; verl takes a list of messages and nothing else."""
    table = pa.Table.from_pylist(
        [
            {
                "data_source": "infalign",
                "prompt": [{"role": "user", "content": row.context}],
                "reward_model": {"style": "rule", "ground_truth": row.prompt_id},
                "extra_info": {"prompt_id": row.prompt_id, "index": index},
            }
            for index, row in enumerate(rows)
        ]
    )
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


def _script(asked: Mapping[str, Any], model: str) -> str:
    quoted = json.dumps(model, ensure_ascii=False)
    lines = [
        "\"data.train_files='$here/train.parquet'\"",
        "\"data.val_files='$here/train.parquet'\"",
        "\"reward.custom_reward_function.path='$here/reward.py'\"",
        shlex.quote(f"actor_rollout_ref.model.path={quoted}"),
        f"'actor_rollout_ref.model.custom_chat_template=\"{AS_IT_IS}\"'",
        *(f"{key}={value}" for key, value in asked.items()),
    ]
    return _HEAD + "".join(f"  {line} \\\n" for line in lines) + '  "$@"\n'


_HEAD = f"""#!/usr/bin/env bash
# Trains on the calibrated reward with verl {VERSION}. What is set here is what the theory needs;
# speed is yours and comes after the script's name, for example:
#   ./verl.sh trainer.n_gpus_per_node=8 trainer.logger=console \\
#     actor_rollout_ref.actor.optim.lr=1e-6 actor_rollout_ref.rollout.tensor_model_parallel_size=1
set -euo pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
exec python3 -m verl.trainer.main_ppo \\
"""
