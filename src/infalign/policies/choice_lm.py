"""A language model answering in one token: a real policy whose law can be written down.

The responses to a prompt are the C tokens the reference finds most likely; the policy is the
model's next-token law restricted to them. Everything the theory says can be computed exactly, the
gradient included, on a real language model: this is where prediction and measurement must meet.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int

from infalign.policies.causal_lm import CausalLM
from infalign.policies.scoring import Scores, hidden_states
from infalign.policies.tabular import TabularPolicy
from infalign.protocols import Response, Sampling

__all__ = ["ChoiceLM"]

Responses = Sequence[Sequence[Response]]


@dataclasses.dataclass(frozen=True)
class _Choices:
    """The responses to one prompt."""

    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    reference: np.ndarray
    """Their probabilities under the reference, restricted to them: C, sums to 1."""


class ChoiceLM:
    """π(y_c|x) = softmax over the C candidates of logit/T, for candidates fixed by the reference.

    Args:
        model: answers; its temperature is the policy's, its stop strings and length cap are not.
        candidates: C, how many of the reference's most likely next tokens are responses. ≥ 2.

    Raises:
        ValueError: fewer than 2 candidates, or more than the vocabulary has.
    """

    def __init__(self, model: CausalLM, candidates: int = 96) -> None:
        vocabulary = len(model.head.weight)
        if not 2 <= candidates <= vocabulary:
            raise ValueError(
                f"candidates is {candidates}; a choice needs 2 to {vocabulary} (the vocabulary)."
            )
        self._model, self._candidates = model, candidates
        self._known: dict[str, _Choices] = {}

    @classmethod
    def from_pretrained(
        cls, path: str | Path, candidates: int = 96, temperature: float = 0.8, **options: Any
    ) -> Self:
        """Load from a folder or model id; `options` are those of :class:`CausalLM`."""
        sampling = Sampling(temperature=temperature, max_new_tokens=1)
        return cls(CausalLM.from_pretrained(path, sampling, **options), candidates)

    @property
    def name(self) -> str:
        """What a figure's legend shows."""
        return self._model.name

    @property
    def module(self) -> torch.nn.Module:
        """Its trainable parameters are the adapter's."""
        return self._model.module

    @property
    def fingerprint(self) -> str:
        """Hash of the model and the number of candidates."""
        return f"{self._model.fingerprint}-{self._candidates}"

    @property
    def sampling(self) -> Sampling:
        """The model's temperature; one token, no stop strings."""
        return Sampling(temperature=self._model.sampling.temperature, max_new_tokens=1)

    @contextlib.contextmanager
    def reference(self) -> Iterator[Self]:
        """Within the block this object *is* the reference policy."""
        with self._model.reference():
            yield self

    def log_law(self, prompts: Sequence[str]) -> Float[torch.Tensor, "P C"]:
        """log π(y_c|x), differentiable with respect to the adapter. Nats, float64."""
        choices = self._choices(prompts)
        tokens = torch.tensor([choice.tokens for choice in choices], device=self._model.device)
        logits = self._model.head.logits(self._states(prompts), tokens)
        return torch.log_softmax(logits.double() / self.sampling.temperature, dim=-1)

    def reference_law(self, prompts: Sequence[str]) -> Float[np.ndarray, "P C"]:
        """π_ref(y_c|x); rows sum to 1."""
        return np.stack([choice.reference for choice in self._choices(prompts)])

    def responses(self, prompts: Sequence[str]) -> list[list[str]]:
        """The C response texts of each prompt, most likely first."""
        return [list(choice.texts) for choice in self._choices(prompts)]

    def choices(
        self, prompts: Sequence[str]
    ) -> tuple[Int[np.ndarray, "P C"], Float[np.ndarray, "P C"]]:
        """Tokens the policy chooses from, and their probabilities under the reference."""
        known = self._choices(prompts)
        return np.array([c.tokens for c in known]), np.stack([c.reference for c in known])

    def adopt(
        self,
        prompts: Sequence[str],
        tokens: Int[np.ndarray, "P C"],
        masses: Float[np.ndarray, "P C"],
    ) -> None:
        """Take over what :meth:`choices` gave, instead of finding it again.

        Which token is the last of the C most likely, and every probability's last digits, depend on
        the number of threads; processes that work on the same rewards must agree on them.
        """
        for prompt, ids, reference in zip(prompts, tokens.tolist(), masses, strict=True):
            texts = tuple(self._model.codec.text((i,)) for i in ids)
            self._known[prompt] = _Choices(tuple(ids), texts, reference)

    @torch.no_grad()
    def law(self, prompts: Sequence[str]) -> TabularPolicy:
        """The policy as it is now, as an exact table."""
        masses = self.log_law(prompts).exp().cpu().numpy()
        texts = tuple(tuple(row) for row in self.responses(prompts))
        return TabularPolicy(tuple(prompts), texts, masses, self.name)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        with torch.no_grad():
            log_laws = self.log_law(prompts).cpu().numpy()
        answers = []
        for choice, log_law in zip(self._choices(prompts), log_laws, strict=True):
            columns = rng.choice(len(log_law), k, p=np.exp(log_law))
            answers.append(
                [Response(choice.texts[c], (choice.tokens[c],), float(log_law[c])) for c in columns]
            )
        return answers

    def differentiable_log_prob(
        self, prompts: Sequence[str], responses: Responses
    ) -> Float[torch.Tensor, "P K"]:
        """log π(y|x) with gradient to the adapter. Nats."""
        columns = torch.from_numpy(self._columns(prompts, responses)).to(self._model.device)
        return self.log_law(prompts).gather(1, columns)

    def differentiable_scores(self, prompts: Sequence[str], responses: Responses) -> Scores:
        """log π, log π_ref and the exact KL of each prompt, the same for all its responses."""
        columns = torch.from_numpy(self._columns(prompts, responses)).to(self._model.device)
        log_law = self.log_law(prompts)
        reference = torch.log(torch.from_numpy(self.reference_law(prompts)).to(log_law.device))
        kl = (log_law.exp() * (log_law - reference)).sum(-1, keepdim=True)
        log_prob = log_law.gather(1, columns)
        return Scores(log_prob, reference.gather(1, columns), kl.expand_as(log_prob))

    @torch.no_grad()
    def log_prob(self, prompts: Sequence[str], responses: Responses) -> Float[np.ndarray, "P K"]:
        """log π(y|x). Nats."""
        return self.differentiable_log_prob(prompts, responses).cpu().numpy()

    def reference_log_prob(
        self, prompts: Sequence[str], responses: Responses
    ) -> Float[np.ndarray, "P K"]:
        """log π_ref(y|x). Nats."""
        columns = self._columns(prompts, responses)
        return np.log(np.take_along_axis(self.reference_law(prompts), columns, axis=1))

    def contexts(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each prompt, checked to leave room for one more."""
        return self._model.contexts(prompts)

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapter in peft's format."""
        self._model.save_adapter(folder)

    def load_adapter(self, folder: str | Path) -> None:
        """Read an adapter of the same shape back in place."""
        self._model.load_adapter(folder)

    def render_chat(self, messages: Sequence[dict[str, str]]) -> str:
        """Chat messages as this model's prompt text."""
        return self._model.render_chat(messages)

    def _states(self, prompts: Sequence[str]) -> torch.Tensor:
        """Last hidden state of each prompt; beginnings that prompts share are computed once."""
        contexts = self._model.contexts(prompts)
        packed = self._model.pack(contexts, [(0,)] * len(contexts))  # what follows is not read
        hidden = hidden_states(self._model.body, packed, self._model.device)
        place = np.empty(len(contexts), np.int64)
        place[packed.path_responses] = packed.sources[packed.path_edges]
        return hidden[torch.from_numpy(place).to(hidden.device)]

    def _choices(self, prompts: Sequence[str]) -> list[_Choices]:
        fresh = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        if fresh:
            self._known.update(zip(fresh, self._choose(fresh), strict=True))
        return [self._known[prompt] for prompt in prompts]

    @torch.no_grad()
    def _choose(self, prompts: Sequence[str]) -> list[_Choices]:
        with self._model.reference():
            logits = self._model.head.logits(self._states(prompts))
        top, tokens = logits.topk(self._candidates, dim=-1)
        law = torch.softmax(top.double() / self.sampling.temperature, dim=-1).cpu().numpy()
        return [
            _Choices(tuple(ids), tuple(self._model.codec.text((i,)) for i in ids), masses)
            for ids, masses in zip(tokens.tolist(), law, strict=True)
        ]

    def _columns(self, prompts: Sequence[str], responses: Responses) -> np.ndarray:
        columns = []
        for choice, answers in zip(self._choices(prompts), responses, strict=True):
            place = {token: column for column, token in enumerate(choice.tokens)}
            foreign = [r for r in answers if len(r.token_ids) != 1 or r.token_ids[0] not in place]
            if foreign:
                raise ValueError(
                    f"response {foreign[0].text[:40]!r} is not one of the {self._candidates} "
                    "tokens this policy chooses from; score responses of the same policy."
                )
            columns.append([place[r.token_ids[0]] for r in answers])
        return np.array(columns)
