"""A table whose probabilities are trained: one free logit per response, starting at a reference."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float

from infalign.policies.scoring import Scores
from infalign.policies.tabular import TabularPolicy
from infalign.protocols import Response, Sampling

__all__ = ["SoftmaxTable"]


class SoftmaxTable(torch.nn.Module):
    """π(y_c|x_p) = softmax_c(logits[p, c]), float64: it can represent every law on its support.

    So whatever a solver leaves short of the tilted policy is the solver's doing. It is trainable
    and enumerable, as a language model is with :class:`ChoiceLM`.

    Args:
        reference: where it starts, and what KL is measured from; all masses positive.

    Raises:
        ValueError: a mass of 0, from which no finite logit starts.
    """

    def __init__(self, reference: TabularPolicy) -> None:
        super().__init__()
        if not (reference.masses > 0).all():
            row = int(np.argwhere(reference.masses <= 0)[0, 0])
            raise ValueError(
                f"a response to prompt {row} has mass 0 under the reference, so no policy at "
                "finite KL gives it any; leave it out of the table."
            )
        self.table = reference
        self.logits = torch.nn.Parameter(torch.log(torch.from_numpy(reference.masses)))
        self._on_reference = 0

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
        """Hash of the law as it is now."""
        return self.snapshot().fingerprint

    @property
    def sampling(self) -> Sampling:
        """A response is one choice."""
        return self.table.sampling

    def log_law(self, prompts: Sequence[str]) -> Float[torch.Tensor, "P C"]:
        """log π(y_c|x), differentiable. Nats."""
        return torch.log_softmax(self.logits[self.table._rows(prompts)], dim=-1)

    def reference_law(self, prompts: Sequence[str]) -> Float[np.ndarray, "P C"]:
        """π_ref(y_c|x)."""
        return self.table.law(prompts)

    def responses(self, prompts: Sequence[str]) -> list[list[str]]:
        """The C response texts of each prompt."""
        return self.table.responses(prompts)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Self]:
        """Within the block this object samples as the reference does."""
        self._on_reference += 1
        try:
            yield self
        finally:
            self._on_reference -= 1

    def snapshot(self) -> TabularPolicy:
        """The law as it is now, as an exact table."""
        if self._on_reference:
            return self.table
        masses = self.log_law(self.table.prompts).detach().exp().numpy()
        return TabularPolicy(self.table.prompts, self.table.candidates, masses, self.name)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return self.snapshot().sample(prompts, k, rng)

    def log_prob(self, prompts: Sequence[str], responses: Any) -> Float[np.ndarray, "P K"]:
        """log π(y|x). Nats."""
        return self.snapshot().log_prob(prompts, responses)

    def reference_log_prob(
        self, prompts: Sequence[str], responses: Any
    ) -> Float[np.ndarray, "P K"]:
        """log π_ref(y|x). Nats."""
        return self.table.log_prob(prompts, responses)

    def differentiable_log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[torch.Tensor, "P K"]:
        """log π(y|x) with gradient to the logits. Nats."""
        rows = self.table._rows(prompts)
        columns = [
            [self.table._column(row, response) for response in answers]
            for row, answers in zip(rows, responses, strict=True)
        ]
        return self.log_law(prompts).gather(1, torch.tensor(columns))

    def differentiable_scores(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Scores:
        """log π, log π_ref and the KL of each prompt, which is the same for all its responses."""
        log_prob = self.differentiable_log_prob(prompts, responses)
        reference = torch.from_numpy(self.reference_log_prob(prompts, responses))
        log_law = self.log_law(prompts)
        log_ratio = log_law - torch.log(torch.from_numpy(self.reference_law(prompts)))
        kl = (log_law.exp() * log_ratio).sum(-1, keepdim=True)
        return Scores(log_prob, reference, kl.expand_as(log_prob))
