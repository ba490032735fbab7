"""Sampling from what is kept: a beginning that was written before is not read again.

All but the last token of what is gone on from comes as keys and values; that one token is read
beside the tokens that other rows write. So a step of a chain costs its new tokens and one more.
What is new is read once for all its samples, and everything written is kept. Texts are read in
portions, each let go once rows have it: memory is that of what is kept, a portion, and the rows.
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
    places: dict[Read, list[int]] = {}
    for place in sorted(range(len(read)), key=lambda i: len(read[i])):
        places.setdefault(read[place], []).append(place)
    texts = list(places)  # short ones first: they have most to write
    for one in texts:  # what this call needs is asked for now, so that the rest makes room first
        kept.find(one[:-1])
    for portion in groups(texts):
        seats = {texts[i]: places[texts[i]] for i in portion}
        if not _write(job, kept, seats, len(texts[-1]), rows):
            return None
    answers = list(zip(*job.answers(), strict=True))
    return [answers[i * job.per_prompt : (i + 1) * job.per_prompt] for i in range(len(read))]


def _write(
    job: Job, kept: KeptBeginnings, seats: dict[Read, list[int]], width: int, rows: int
) -> bool:
    """Begin a portion: texts, each with its places among all, none longer than `width`.

    Returns False where keys and values cannot be moved. A function of its own, so that what was
    read for this portion is gone before the next is read.
    """
    device = job.is_stop.device
    sources = _sources(kept, job.body, list(seats), device)
    if sources is None:
        return False
    job.write(_waiting(seats, sources, width, job.per_prompt, device), rows)
    return True


def _sources(
    kept: KeptBeginnings, body: Callable[..., Any], texts: Sequence[Read], device: torch.device
) -> dict[Read, Kept] | None:
    """What begins with all but the last token of each text: kept, or read now and not kept."""
    found = {one: kept.find(one[:-1]) for one in texts}
    new = [one for one, source in found.items() if source is None]
    fresh = _read(body, new, device) if new else {}
    if fresh is None:
        return None
    return {one: source or fresh[one] for one, source in found.items()}


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
    return {
        text: Kept.of_row(text, cache.layers, row, copy=False) for row, text in enumerate(texts)
    }


def _waiting(
    seats: dict[Read, list[int]],
    found: dict[Read, Kept],
    width: int,
    samples: int,
    device: torch.device,
) -> Waiting:
    texts = [text for text, places in seats.items() for _ in places]
    sources = [found[text] for text in texts]
    owners = torch.tensor([place for places in seats.values() for place in places], device=device)
    owners = owners[:, None] * samples + torch.arange(samples, device=device)
    lengths = torch.tensor([len(text) - 1 for text in texts], device=device)
    tokens = torch.tensor([text[-1] for text in texts], device=device)

    def fill(slots: Slots, rows: torch.Tensor, some: Waiting) -> None:
        taken: dict[int, list[int]] = {}
        for row, seat in zip(rows.tolist(), some.sources.tolist(), strict=True):
            taken.setdefault(seat, []).append(row)
        for seat, where in taken.items():
            row = torch.tensor(where, device=device)
            sources[seat].fill(slots.layers, row, len(texts[seat]) - 1)

    return Waiting(
        cache=SimpleNamespace(layers=[_shaped(*layer) for layer in sources[0].layers]),
        width=width,
        owners=owners.flatten(),
        sources=torch.arange(len(texts), device=device).repeat_interleave(samples),
        lengths=lengths.repeat_interleave(samples),
        tokens=tokens.repeat_interleave(samples),
        drawn=0,
        fill=fill,
    )


def _shaped(keys: torch.Tensor, values: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(keys=keys[None], values=values[None])
