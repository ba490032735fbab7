"""Sampling with a full batch: the place of a finished response goes to the next one at once."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from infalign.policies.next_token import Head, draw_next
from infalign.policies.slots import Slots, is_refillable

__all__ = ["Job", "Waiting", "generate_refilled", "groups"]

_PREFILL_TOKENS = 2048
"""Prompt tokens read at a time."""
_DROP_BELOW = 0.75
"""Once nothing waits, rows are dropped when the share still writing falls below this."""
_FREE = -1


@dataclasses.dataclass
class Waiting:
    """Samples whose prompt has been read, which wait for a row to be written in."""

    cache: Any
    """Keys and values of the prompts, from the left; or of the same model, for their shapes."""
    width: int
    """Tokens of the longest of these prompts."""
    owners: torch.Tensor
    """Which sample each is."""
    sources: torch.Tensor
    """Where its prompt's keys and values are."""
    lengths: torch.Tensor
    """How many of its prompt's tokens they are of."""
    tokens: torch.Tensor
    """The token to be read next."""
    drawn: int = 1
    """Tokens drawn so far: that one, or none if it is the prompt's own last."""
    fill: Callable[[Slots, torch.Tensor, "Waiting"], None] | None = None
    """Gives rows their keys and values; by default those of `cache`."""

    def __getitem__(self, some: slice) -> "Waiting":
        fields = ("owners", "sources", "lengths", "tokens")
        return dataclasses.replace(self, **{name: getattr(self, name)[some] for name in fields})


class Job:
    """N = P·K samples being written.

    Args:
        body: maps `input_ids` to `last_hidden_state`, and keeps `past_key_values`.
        head: hidden state to logits.
        numbers: P K T uniform numbers.
        temperature: divides the logits.
        is_stop: V, True for tokens that end a response.
        caps: P, tokens each sample of a prompt may have; T by default.
        finished: told of the rows whose responses have ended, before they are given away.
    """

    def __init__(
        self,
        body: Callable[..., Any],
        head: Head,
        numbers: torch.Tensor,
        temperature: float,
        is_stop: torch.Tensor,
        caps: Sequence[int] | None = None,
        finished: Callable[["Job", Slots, torch.Tensor], None] | None = None,
    ) -> None:
        self.body, self.head, self.temperature, self.is_stop = body, head, temperature, is_stop
        self.finished = finished
        self.per_prompt = numbers.shape[1]
        self.numbers = numbers.flatten(0, 1)
        count, self.longest = self.numbers.shape
        device = numbers.device
        each = [self.longest] * len(numbers) if caps is None else list(caps)
        self.caps = torch.tensor(each, device=device).repeat_interleave(self.per_prompt)
        self.written = torch.full((count, self.longest), _FREE, device=device)
        self.total = torch.zeros(count, dtype=torch.float64, device=device)
        self.slots: Slots | None = None
        rows = torch.zeros(0, dtype=torch.long, device=device)
        self.owner, self.token, self.count = rows, rows, rows

    def read(self, prompts: Sequence[int], contexts: Sequence[Sequence[int]]) -> Waiting:
        """Read some prompts once each, and draw the first token of all their samples."""
        device, texts = self.is_stop.device, [contexts[i] for i in prompts]
        lengths = torch.tensor([len(text) for text in texts], device=device)
        width = max(map(len, texts))
        ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
        columns = torch.arange(width, device=device)
        out = self.body(
            input_ids=ids,
            attention_mask=(columns < lengths[:, None]).long(),
            position_ids=columns.expand_as(ids),
            use_cache=True,
        )
        rows = torch.arange(len(texts), device=device)
        last = out.last_hidden_state[rows, lengths - 1]
        owners = torch.tensor(prompts, device=device)[:, None] * self.per_prompt
        owners = owners + torch.arange(self.per_prompt, device=device)
        tokens, gained = draw_next(self.head, last, self.temperature, self.numbers[owners, 0])
        self.written[owners, 0], self.total[owners] = tokens, gained
        going = (~self.is_stop[tokens] & (self.caps[owners] > 1)).nonzero()
        owners, sources = owners[going[:, 0], going[:, 1]], going[:, 0]
        cache = getattr(out, "past_key_values", None)
        return Waiting(cache, width, owners, sources, lengths[sources], self.written[owners, 0])

    def open(self, waiting: Waiting, rows: int) -> None:
        """Make room for these prompts; at first, `rows` free rows.

        Responses mostly end long before the cap, so room for their tokens comes when needed.
        """
        limit = waiting.width + self.longest - 1
        if self.slots is None:
            self.slots = Slots(waiting.cache, rows, waiting.width, limit)
            self.owner = self.owner.new_full((rows,), _FREE)
            self.token, self.count = torch.zeros_like(self.owner), torch.zeros_like(self.owner)
        self.slots.limit = limit
        self.slots.reserve(waiting.width)

    def seat(self, slots: Slots, waiting: Waiting) -> Waiting:
        """Give free rows to those who wait; who still waits."""
        free = (self.owner == _FREE).nonzero()[:, 0][: len(waiting.owners)]
        if not len(free):
            return waiting
        taken = waiting[: len(free)]
        if waiting.fill is None:
            slots.put(free, waiting.cache, taken.sources, int(taken.lengths.max()))
        else:
            waiting.fill(slots, free, taken)
        slots.positions[free] = taken.lengths
        self.owner[free], self.count[free] = taken.owners, waiting.drawn
        self.token[free] = taken.tokens
        return waiting[len(free) :]

    def step(self, slots: Slots) -> None:
        """One more token of every row that is taken."""
        states = self.body(
            input_ids=self.token[:, None],
            attention_mask=slots.mask(),
            position_ids=slots.positions[:, None],
            past_key_values=slots.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        live = (self.owner != _FREE).nonzero()[:, 0]
        owner, place = self.owner[live], self.count[live]
        uniforms = self.numbers[owner, place, None]
        tokens, gained = draw_next(self.head, states[live], self.temperature, uniforms)
        self.written[owner, place] = self.token[live] = tokens[:, 0]
        self.total[owner] += gained[:, 0]
        self.count[live] += 1
        slots.positions[live] += 1
        done = live[self.is_stop[tokens[:, 0]] | (place + 1 == self.caps[owner])]
        if self.finished is not None and len(done):
            self.finished(self, slots, done)
        self.owner[done], slots.positions[done] = _FREE, 0

    def write(self, waiting: Waiting, rows: int) -> None:
        """Write until all who wait have one of the `rows`."""
        self.open(waiting, min(rows, len(self.numbers)))
        assert self.slots is not None
        while len((waiting := self.seat(self.slots, waiting)).owners):
            self.step(self.slots)

    def answers(self) -> tuple[list[list[int]], list[float]]:
        """Tokens of all samples, and their log-probabilities in nats, when all are written."""
        if self.slots is not None:
            self.finish(self.slots)
        return [
            [t for t in row if t != _FREE] for row in self.written.tolist()
        ], self.total.tolist()

    def finish(self, slots: Slots) -> None:
        """Write to the end what nothing waits for; rows that are through are dropped."""
        while len(live := (self.owner != _FREE).nonzero()[:, 0]):
            if len(live) < _DROP_BELOW * len(self.owner):
                slots.keep(live)
                self.owner, self.token = self.owner[live], self.token[live]
                self.count = self.count[live]
            self.step(slots)


@torch.no_grad()
def generate_refilled(
    body: Callable[..., Any],
    head: Head,
    contexts: Sequence[Sequence[int]],
    numbers: torch.Tensor,
    temperature: float,
    is_stop: torch.Tensor,
    rows: int,
    caps: Sequence[int] | None = None,
) -> tuple[list[list[int]], list[float]] | None:
    """K responses to each of P prompts, `rows` at a time, each row refilled when its response ends.

    A prompt is read once for all of its samples. Prompts go from short to long, so that rows side
    by side are of like length.

    Args:
        body: maps `input_ids` to `last_hidden_state`, and keeps `past_key_values`.
        head: hidden state to logits.
        contexts: P token sequences.
        numbers: P K T uniform numbers in [0, 1); T caps the length.
        temperature: divides the logits.
        is_stop: V, True for tokens that end a response.
        rows: sequences side by side.
        caps: P, tokens each sample of a prompt may have, at most T; T by default.

    Returns:
        P·K token sequences, the terminating token included, and their log-probabilities in nats;
        None where the architecture keeps a cache whose rows cannot be refilled.
    """
    job = Job(body, head, numbers, temperature, is_stop, caps)
    for prompts in groups(contexts):
        waiting = job.read(prompts, contexts)
        if not is_refillable(waiting.cache):
            return None
        job.write(waiting, rows)
    return job.answers()


def groups(contexts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Prompts from short to long, as many together as a prefill should read."""
    group: list[int] = []
    for index in sorted(range(len(contexts)), key=lambda i: len(contexts[i])):
        if group and (len(group) + 1) * len(contexts[index]) > _PREFILL_TOKENS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
