"""What a causal language model makes of a beginning: the hidden state at its last token."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from infalign.policies.causal_lm import CausalLM
from infalign.policies.scoring import hidden_states
from infalign.protocols import Response

__all__ = ["all_states", "examples", "flat", "last_states"]

_CHUNK = 256
"""Responses read at a time: their states, of all tokens, are what is in memory."""


@torch.no_grad()
def last_states(
    lm: CausalLM, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]
) -> Float[np.ndarray, "M D"]:
    """The state after each of M beginnings, ended ones too, with the weights as they are now.

    Beginnings of the beginnings that are shared are read once, wherever the architecture allows it.
    """
    states, _ = _read(lm, prompts, beginnings, [len(beginning) for beginning in beginnings])
    return states


def all_states(
    lm: CausalLM, prompts: Sequence[str], responses: Sequence[Sequence[int]]
) -> Iterator[tuple[Float[np.ndarray, "M D"], Int[np.ndarray, "M"]]]:
    """The states after 0, 1, … all tokens of each response, and whose they are; some at a time."""
    for first in range(0, len(responses), _CHUNK):
        part = slice(first, first + _CHUNK)
        with torch.no_grad():
            states, whose = _read(lm, prompts[part], responses[part], None)
        yield states, whose + first


def flat(
    prompts: Sequence[str], responses: Sequence[Sequence[Response]]
) -> tuple[list[str], list[tuple[int, ...]]]:
    """A prompt to each of P·K responses, and their tokens, counted through."""
    asked = [prompt for prompt, row in zip(prompts, responses, strict=True) for _ in row]
    return asked, [response.token_ids for row in responses for response in row]


def examples(
    lm: CausalLM,
    prompts: Sequence[str],
    responses: Sequence[Sequence[Response]],
    most: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """States of beginnings of responses, and whose they are, P·K counted through.

    All of them, or `most` of them, each as likely as any other: what is not chosen is not kept.
    """
    asked, ids = flat(prompts, responses)
    count = sum(len(one) + 1 for one in ids)
    chosen = np.ones(count, dtype=bool)
    if count > most:
        chosen[:] = False
        chosen[rng.choice(count, most, replace=False)] = True
    parts, first = [], 0
    for states, rows in all_states(lm, asked, ids):
        kept = chosen[first : first + len(rows)]
        parts.append((states[kept], rows[kept]))
        first += len(rows)
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _read(
    lm: CausalLM,
    prompts: Sequence[str],
    responses: Sequence[Sequence[int]],
    starts: Sequence[int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """States along each response, from its start on, in the order of the responses."""
    # Rows are made for states that predict a token: one more than there is, which is never read.
    longer = [[*response, 0] for response in responses]
    packed = lm.pack(lm.contexts(prompts), longer, starts)
    with lm.weights()():
        states = hidden_states(lm.body, packed, lm.device).cpu().numpy()
    order = np.argsort(packed.path_responses, kind="stable")
    places = packed.sources[packed.path_edges[order]]
    return states[places], packed.path_responses[order]
