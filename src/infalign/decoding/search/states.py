"""What a causal language model makes of a beginning: the hidden state at its last token."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from infalign.policies.causal_lm import CausalLM
from infalign.policies.scoring import hidden_states

__all__ = ["all_states", "last_states"]

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
