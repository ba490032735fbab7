"""Sampling from what is kept: a beginning that was written before is not read again.

All but the last token of what is gone on from comes as keys and values; that one token is read
beside the tokens that other rows write. So a step of a chain costs its new tokens and one more.
What is new is read once for all its samples, and everything written is kept.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from infalign.policies.kept import Kept, KeptBeginnings
from infalign.policies.next_token import Head
from infalign.policies.refill import Job, Waiting, groups
from infalign.policies.slots import Slots, is_refillable

__all__ = ["generate_from_kept"]

Read = tuple[int, ...]


@torch.no_grad()
def generate_from_kept(
    kept: KeptBeginnings,
    body: Callable[..., Any],
    head: Head,
    read: Sequence[Read],
    uniforms: np.ndarray,
    temperature: float,
    is_stop: torch.Tensor,
    rows: int,
    caps: Sequence[int],
) -> list[list[tuple[list[int], float]]] | None:
    """K samples after each of M token sequences, `rows` at a time; see `generate_refilled`.

    Args:
        kept: what was written before; what is written now is added.
        body: maps `input_ids` to `last_hidden_state`, and keeps `past_key_values`.
        head: hidden state to logits.
        read: M token sequences, each a prompt and the beginning of a response.
        uniforms: M K T uniform numbers in [0, 1).
        temperature: divides the logits.
        is_stop: V, True for tokens that end a response.
        rows: sequences side by side.
        caps: M, new tokens each sample may have, at most T.

    Returns:
        M lists of K (new tokens, nats); None where the architecture's keys and values cannot be
        moved from row to row.
    """
    found = {one: kept.find(one[:-1]) for one in dict.fromkeys(read)}
    new = [one for one, source in found.items() if source is None]
    for group in groups(new):
        fresh = _read(body, [new[place] for place in group], is_stop.device)
        if fresh is None:
            return None
        found |= fresh
    sources = [source for one in read if (source := found[one]) is not None]
    numbers = torch.from_numpy(uniforms).to(is_stop.device)

    def keep(job: Job, slots: Slots, done: torch.Tensor) -> None:
        """Keys and values of what is in the rows, but for the last token: it was never read."""
        owners = job.owner[done].tolist()
        counts, written = job.count[done].tolist(), job.written[job.owner[done]].tolist()
        for place, row in enumerate(done.tolist()):
            begun = read[owners[place] // job.per_prompt]
            tokens = (*begun, *written[place][: counts[place] - 1])
            if tokens not in kept:
                kept.add(Kept.of_row(tokens, slots.layers, row))

    job = Job(body, head, numbers, temperature, is_stop, caps, keep)
    if len(read):
        job.write(_waiting(read, sources, job.per_prompt, is_stop.device), rows)
    answers = list(zip(*job.answers(), strict=True))
    return [answers[i * job.per_prompt : (i + 1) * job.per_prompt] for i in range(len(read))]


def _read(
    body: Callable[..., Any], texts: Sequence[Read], device: torch.device
) -> dict[Read, Kept] | None:
    """Keys and values of texts that nothing kept begins with."""
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
    columns = torch.arange(width, device=device)
    lengths = torch.tensor([len(text) for text in texts], device=device)
    out = body(
        input_ids=ids,
        attention_mask=(columns < lengths[:, None]).long(),
        position_ids=columns.expand_as(ids),
        use_cache=True,
    )
    cache: Any = getattr(out, "past_key_values", None)
    if not is_refillable(cache):
        return None
    return {text: Kept.of_row(text, cache.layers, row) for row, text in enumerate(texts)}


def _waiting(
    read: Sequence[Read], sources: Sequence[Kept], samples: int, device: torch.device
) -> Waiting:
    """Everyone at once, short beginnings first: they have most to write."""
    order = sorted(range(len(read)), key=lambda i: len(read[i]))
    places = torch.tensor(order, device=device).repeat_interleave(samples)
    lengths = torch.tensor([len(read[i]) - 1 for i in order], device=device)
    tokens = torch.tensor([read[i][-1] for i in order], device=device)

    def fill(slots: Slots, rows: torch.Tensor, some: Waiting) -> None:
        seats: dict[int, list[int]] = {}
        for row, place in zip(rows.tolist(), some.sources.tolist(), strict=True):
            seats.setdefault(place, []).append(row)
        for place, taken in seats.items():
            where = torch.tensor(taken, device=device)
            sources[place].fill(slots.layers, where, len(read[place]) - 1)

    return Waiting(
        cache=SimpleNamespace(layers=[_shaped(*layer) for layer in sources[0].layers]),
        width=max(map(len, read)),
        owners=places * samples + torch.arange(samples, device=device).repeat(len(order)),
        sources=places,
        lengths=lengths.repeat_interleave(samples),
        tokens=tokens.repeat_interleave(samples),
        drawn=0,
        fill=fill,
    )


def _shaped(keys: torch.Tensor, values: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(keys=keys[None], values=values[None])
