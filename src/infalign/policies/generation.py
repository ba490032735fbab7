"""Sampling: one prefill a prompt for its K samples; finished rows are refilled or dropped."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from infalign.policies.next_token import Head, draw_next
from infalign.policies.refill import generate_refilled

__all__ = ["generate", "generate_chunks", "generate_in_batches"]

_DROP_BELOW = 0.75
"""Rows are compacted when the share still writing falls below this; a cache copy costs little."""


@dataclasses.dataclass
class _Rows:
    """The rows still in the batch."""

    owner: torch.Tensor
    """Which sample each row writes."""
    active: torch.Tensor
    """False once its response has ended."""
    mask: torch.Tensor
    """Attention over prompt padding and cached tokens."""
    position: torch.Tensor
    """Position of the next token."""


def generate_in_batches(
    body: Callable[..., Any],
    head: Head,
    contexts: Sequence[Sequence[int]],
    uniforms: np.ndarray,
    temperature: float,
    is_stop: torch.Tensor,
    rows: int,
    caps: Sequence[int] | None = None,
) -> list[list[tuple[list[int], float]]]:
    """At most `rows` samples side by side, from the full vocabulary: P lists of K (tokens, nats).

    Each sample's uniform numbers are its own, so batching changes it by rounding only. Where the
    architecture allows it, finished rows are refilled at once; see `refill`. `caps` are tokens each
    sample of a prompt may have, where they are fewer than the uniform numbers.
    """
    numbers = torch.from_numpy(uniforms).to(is_stop.device)
    found = generate_refilled(body, head, contexts, numbers, temperature, is_stop, rows, caps)
    if found is None:
        return generate_chunks(body, head, contexts, uniforms, temperature, is_stop, rows, caps)
    answers, samples = list(zip(*found, strict=True)), uniforms.shape[1]
    return [answers[i * samples : (i + 1) * samples] for i in range(len(contexts))]


def generate_chunks(
    body: Callable[..., Any],
    head: Head,
    contexts: Sequence[Sequence[int]],
    uniforms: np.ndarray,
    temperature: float,
    is_stop: torch.Tensor,
    rows: int,
    caps: Sequence[int] | None = None,
) -> list[list[tuple[list[int], float]]]:
    """The same for caches whose rows cannot be refilled: one chunk of rows after another.

    Prompts of like length go together, which wastes least on padding.
    """
    samples = uniforms.shape[1]
    answers: list[list[tuple[list[int], float]]] = [[] for _ in contexts]
    order = sorted(range(len(contexts)), key=lambda i: len(contexts[i]))
    width = max(1, rows // samples)
    for start in range(0, len(order), width):
        chunk = order[start : start + width]
        for first in range(0, samples, rows):
            part = uniforms[chunk, first : first + rows]
            prompts = [contexts[i] for i in chunk]
            each = None if caps is None else [caps[i] for i in chunk]
            ids, log_probs = generate(body, head, prompts, part, temperature, is_stop, each)
            for row, answer in enumerate(zip(ids, log_probs.tolist(), strict=True)):
                answers[chunk[row // part.shape[1]]].append(answer)
    return answers


@torch.no_grad()
def generate(
    body: Callable[..., Any],
    head: Head,
    prompts: Sequence[Sequence[int]],
    uniforms: np.ndarray,
    temperature: float,
    is_stop: torch.Tensor,
    caps: Sequence[int] | None = None,
) -> tuple[list[list[int]], np.ndarray]:
    """K responses to each prompt, from the full vocabulary.

    Args:
        body: maps `input_ids` to `last_hidden_state` and, with `use_cache`, `past_key_values`.
        head: hidden state to logits.
        prompts: P token sequences, with P K T `uniforms` in [0, 1); T caps the length.
        temperature: divides the logits.
        is_stop: V, True for tokens that end a response.
        caps: P, tokens each sample of a prompt may have, at most T; T by default.

    Returns:
        P·K token sequences, the terminating token included, and their log-probabilities in nats.
    """
    samples, length = uniforms.shape[1], uniforms.shape[2]
    numbers = torch.from_numpy(uniforms).to(is_stop.device)
    hidden, cache, mask = _prefill(body, prompts, is_stop.device)
    tokens, total = draw_next(head, hidden, temperature, numbers[:, :, 0].contiguous())
    tokens, total, numbers = tokens.flatten(), total.flatten(), numbers.flatten(0, 1)
    written = torch.full((len(tokens), length), -1, device=is_stop.device)
    written[:, 0] = tokens
    most = torch.tensor([length] * len(prompts) if caps is None else caps, device=is_stop.device)
    most = most.repeat_interleave(samples)
    rows = _repeat(cache, mask, samples, ~is_stop[tokens] & (most > 1))
    for step in range(1, length):
        if not rows.active.any():
            break
        rows, tokens = _compact(rows, tokens, cache)
        hidden = _read(body, rows, tokens, cache)
        drawn, gained = draw_next(head, hidden, temperature, numbers[rows.owner, step, None])
        tokens = drawn[:, 0]
        writing = rows.owner[rows.active]
        written[writing, step] = tokens[rows.active]
        total[writing] += gained[rows.active, 0]
        rows.active &= ~is_stop[tokens] & (most[rows.owner] > step + 1)
    return [[token for token in row if token >= 0] for row in written.tolist()], total.cpu().numpy()


def _repeat(cache: Any, mask: torch.Tensor, samples: int, active: torch.Tensor) -> _Rows:
    """Let each prompt's cache and mask serve all of its samples."""
    cache.batch_repeat_interleave(samples)
    mask = mask.repeat_interleave(samples, 0)
    return _Rows(torch.arange(len(mask), device=mask.device), active, mask, mask.sum(-1))


def _read(body: Callable[..., Any], rows: _Rows, tokens: torch.Tensor, cache: Any) -> torch.Tensor:
    """Run one more token of each row through the body; its state predicts the next."""
    rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(tokens), 1)], 1)
    states = body(
        input_ids=tokens[:, None],
        attention_mask=rows.mask,
        position_ids=rows.position[:, None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    rows.position += 1
    return states[:, -1]


def _prefill(
    body: Callable[..., Any], prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    out = body(input_ids=ids, attention_mask=mask, position_ids=position, use_cache=True)
    cache = getattr(out, "past_key_values", None)
    if not hasattr(cache, "batch_repeat_interleave"):
        raise ValueError(
            "this architecture keeps no attention cache that K samples could share (a recurrent "
            "model?), so it cannot be sampled here; use a transformer."
        )
    return out.last_hidden_state[:, -1], cache, mask


def _compact(rows: _Rows, tokens: torch.Tensor, cache: Any) -> tuple[_Rows, torch.Tensor]:
    if rows.active.float().mean() >= _DROP_BELOW:
        return rows, tokens
    kept = rows.active.nonzero()[:, 0]
    cache.batch_select_indices(kept)
    fields = (rows.owner, rows.active, rows.mask, rows.position)
    return _Rows(*(field[kept] for field in fields)), tokens[kept]
