"""Shards as Arrow tables: a row per rollout, a row per reward."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.rollouts.contents import MAKER

__all__ = ["REWARDS", "ROLLOUTS", "reward_slug", "reward_table", "rollout_table"]

ROLLOUTS = pa.schema(
    {
        "prompt_id": pa.string(),
        "prompt": pa.string(),
        "sample": pa.int32(),
        "text": pa.string(),
        "token_ids": pa.list_(pa.int32()),
        "log_prob": pa.float64(),
        "finish_reason": pa.string(),
    }
)

REWARDS = pa.schema(
    {
        "prompt_id": pa.string(),
        "sample": pa.int32(),
        "reward_name": pa.string(),
        "reward": pa.float64(),
    }
)


def rollout_table(
    prompts: Sequence[Prompt], samples: Sequence[int], responses: Sequence[Sequence[Response]]
) -> pa.Table:
    """The given samples of each prompt, prompt by prompt.

    Raises:
        ValueError: if there are not as many responses to each prompt as samples.
    """
    counts = [len(row) for row in responses]
    if counts != [len(samples)] * len(prompts):
        raise ValueError(
            f"{counts} responses were given for {len(samples)} samples of each of {len(prompts)} "
            "prompts; each prompt needs one response per sample."
        )
    given = [response for row in responses for response in row]
    columns = [
        [prompt.id for prompt in prompts for _ in samples],
        [prompt.text for prompt in prompts for _ in samples],
        list(samples) * len(prompts),
        [response.text for response in given],
        [response.token_ids for response in given],
        [response.log_prob for response in given],
        [response.finish_reason for response in given],
    ]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, ROLLOUTS, strict=True)]
    return pa.table(arrays, ROLLOUTS)


def reward_table(
    name: str,
    maker: str | None,
    prompts: Sequence[Prompt],
    samples: Sequence[int],
    rewards: Float[np.ndarray, "P K"],
) -> pa.Table:
    """Rewards of the given samples of each prompt, prompt by prompt.

    Raises:
        ValueError: if there is not one number for each.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.shape != (len(prompts), len(samples)):
        raise ValueError(
            f"rewards of shape {values.shape} were given for {len(samples)} samples of each of "
            f"{len(prompts)} prompts; one number for each is needed."
        )
    row = np.repeat(np.arange(len(prompts)), len(samples))
    columns = {
        "prompt_id": pa.array([p.id for p in prompts], pa.string()).take(pa.array(row)),
        "sample": pa.array(np.tile(samples, len(prompts)), pa.int32()),
        "reward_name": pa.repeat(pa.scalar(name), values.size),
        "reward": pa.array(values.ravel()),
    }
    table = pa.table(columns, REWARDS)
    return table if maker is None else table.replace_schema_metadata({MAKER: maker.encode()})


def reward_slug(name: str) -> str:
    """How a reward's shards begin: its name, as far as file names allow."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)[:40]
