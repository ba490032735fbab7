"""A table of tokens whose next-token laws are trained: the smallest language model there is.

What a solver does to a policy that writes token by token, continues beginnings and is rewritten
from somewhere in the middle can be compared here with sums over all that can be written.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from jaxtyping import Float

from infalign.policies.tabular_lm import TabularLM
from infalign.policies.tabular_stream import TabularStream
from infalign.protocols import Response, Sampling

__all__ = ["SoftmaxLM"]

Responses = Sequence[Sequence[Response]]


class SoftmaxLM(torch.nn.Module):
    """π(token | x_p, y_<t) = softmax(logits[p, b]), float64: every law on full support.

    It is trainable, enumerable over whole responses, and goes on from beginnings.

    Args:
        reference: where it starts, and what KL is measured from; all probabilities positive.

    Raises:
        ValueError: a probability of 0, from which no finite logit starts.

    Example:
        >>> lm = SoftmaxLM(TabularLM(("x",), ("a", "b"), np.full((1, 3, 3), 1 / 3)))
        >>> lm.differentiable_log_prob(["x"], [[Response("ab", (0, 1))]]).exp().round(decimals=4)
        tensor([[0.1111]], dtype=torch.float64, grad_fn=<RoundBackward1>)
    """

    def __init__(self, reference: TabularLM) -> None:
        super().__init__()
        if not (reference.laws > 0).all():
            row, place, token = np.argwhere(reference.laws <= 0)[0]
            raise ValueError(
                f"token {token} after {reference.beginnings[place]} has probability 0 at prompt "
                f"{row}, so no policy at finite KL gives it any; use laws of full support."
            )
        self.table = reference
        self.logits = torch.nn.Parameter(torch.log(torch.from_numpy(reference.laws)))
        self._on_reference = 0
        self._snapshot: tuple[int, TabularLM] | None = None

    @property
    def module(self) -> torch.nn.Module:
        """Itself."""
        return self

    @property
    def name(self) -> str:
        """What a figure's legend shows."""
        return f"{self.table.name}, trained"

    @property
    def fingerprint(self) -> str:
        """Hash of the laws as they are now."""
        return self.snapshot().fingerprint

    @property
    def sampling(self) -> Sampling:
        """Temperature 1, the table's length cap."""
        return self.table.sampling

    @property
    def vocabulary(self) -> str:
        """Hash of the tokens."""
        return self.table.vocabulary

    @property
    def stop_ids(self) -> frozenset[int]:
        """Only the table's end."""
        return self.table.stop_ids

    @contextlib.contextmanager
    def reference(self) -> Iterator[Self]:
        """Within the block this object *is* the reference."""
        self._on_reference += 1
        try:
            yield self
        finally:
            self._on_reference -= 1

    def snapshot(self) -> TabularLM:
        """The laws as they are now, as an exact table."""
        if self._on_reference:
            return self.table
        version = self.logits._version  # counts every change in place
        if self._snapshot is None or self._snapshot[0] != version:
            laws = torch.softmax(self.logits.detach(), -1).numpy()
            made = TabularLM(self.table.prompts, self.table.tokens, laws, self.name)
            self._snapshot = version, made
        return self._snapshot[1]

    def log_law(self, prompts: Sequence[str]) -> Float[torch.Tensor, "P S"]:
        """log π(y|x) of every response, differentiable; in the order of the table. Nats."""
        every = [Response("", sequence) for sequence in self.table.sequences]
        return self.differentiable_log_prob(prompts, [every] * len(prompts))

    def reference_law(self, prompts: Sequence[str]) -> Float[np.ndarray, "P S"]:
        """π_ref(y|x)."""
        return self.table.masses[self.table.rows(prompts)]

    def responses(self, prompts: Sequence[str]) -> list[list[str]]:
        """The S response texts of each prompt."""
        return [self.table.texts()] * len(prompts)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return self.snapshot().sample(prompts, k, rng)

    def continue_from(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[Sequence[int]],
        k: int,
        rng: np.random.Generator,
        *,
        limit: int | None = None,
    ) -> list[list[Response]]:
        """K independent responses that begin so, to each of M pairs of a prompt and a beginning."""
        return self.snapshot().continue_from(prompts, beginnings, k, rng, limit=limit)

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> TabularStream:
        """Start writing a response to each of R prompts."""
        return self.snapshot().stream(prompts, beginnings)

    def response(self, token_ids: Sequence[int], log_prob: float) -> Response:
        """A response from its tokens."""
        return self.table.response(token_ids, log_prob)

    def log_prob(self, prompts: Sequence[str], responses: Responses) -> Float[np.ndarray, "P K"]:
        """log π(y|x). Nats."""
        return self.snapshot().log_prob(prompts, responses)

    def reference_log_prob(
        self, prompts: Sequence[str], responses: Responses
    ) -> Float[np.ndarray, "P K"]:
        """log π_ref(y|x). Nats."""
        return self.table.log_prob(prompts, responses)

    def differentiable_log_prob(
        self,
        prompts: Sequence[str],
        responses: Responses,
        starts: Sequence[Sequence[int]] | None = None,
    ) -> Float[torch.Tensor, "P K"]:
        """log π of each response with gradient to the logits, from token `starts[p][k]` on. Nats.

        A response that has not ended counts as far as it goes.
        """
        rows, places, tokens, owners = [], [], [], []
        shape = len(responses), len(responses[0])
        for p, (row, answers) in enumerate(zip(self.table.rows(prompts), responses, strict=True)):
            for k, response in enumerate(answers):
                ids = response.token_ids
                first = 0 if starts is None else starts[p][k]
                rows += [int(row)] * (len(ids) - first)
                places += [self.table.place(ids[:t]) for t in range(first, len(ids))]
                tokens += ids[first:]
                owners += [p * shape[1] + k] * (len(ids) - first)
        laws = torch.log_softmax(self.logits, -1)
        total = torch.zeros(shape[0] * shape[1], dtype=torch.float64)
        return total.index_add(0, torch.tensor(owners), laws[rows, places, tokens]).view(shape)
