"""Controlled decoding: a value steers the next-token law, and the result is a policy again.

π'(a|x, b) = π(a|x, b)·exp(V(x, b + a)/β) / Σ. With the soft value V = β·log E[exp(r/β) | b] the sum
is exp(V(x, b)/β), the product over tokens telescopes to π(y|x)·exp(r/β)/Z, and the controlled
policy *is* the tilted one. With the mean value it is what is usually called controlled decoding.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.decoding.counts import refuse_count
from infalign.decoding.search.values import TabularValue, Value, refuse_vocabulary
from infalign.policies import streams
from infalign.policies.alignment import Alignment, tilted_alignment, warn_of_second_tilt
from infalign.policies.beams import beam
from infalign.protocols import LogitPolicy, Response, Sampling, TokenStream
from infalign.quantile.transforms import refuse_beta

__all__ = ["Controlled", "ControlledStream", "controlled"]

_READABLE = 4096
"""Tokens a value that is no table may be asked of at every step; more would take minutes."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Controlled:
    """The policy π·exp(V/β), normalised token by token. Made by :func:`controlled`."""

    policy: LogitPolicy
    """What is steered."""
    value: Value
    """What steers it."""
    beta: float
    """KL coefficient, in the value's unit. > 0."""
    top: int | None = None
    """Tokens that are valued at each step; the others get probability 0. None: all."""
    steered: Alignment | None = None
    """By which reward it is steered, where that has a name."""

    def __post_init__(self) -> None:
        refuse_beta(self.beta)
        tilted_alignment(None, self.steered, self.beta)
        if self.top is not None:
            refuse_count(self.top, "top", "controlled decoding")
        if not isinstance(self.policy, LogitPolicy):
            raise TypeError(
                f"controlled decoding reads next-token laws and {type(self.policy).__name__} shows "
                "none; use a local model (CausalLM, TabularLM), or search: BlockSearch on what "
                "goes on from beginnings, best-of-N on what only samples."
            )
        refuse_vocabulary(self.value, self.policy)
        if self.top is None:  # a law tells how many tokens there are; a model at once
            head = getattr(self.policy, "head", None)
            _refuse_many(self.value, 0 if head is None else len(head.weight))

    @property
    def aligned(self) -> Alignment | None:
        """By which reward it is steered; where the policy was aligned before, by both."""
        return tilted_alignment(getattr(self.policy, "aligned", None), self.steered, self.beta)

    @property
    def name(self) -> str:
        """The policy's, the value's and β."""
        cut = "" if self.top is None else f", top {self.top}"
        return f"{self.policy.name} controlled by {self.value.name} at β={self.beta:g}{cut}"

    @property
    def fingerprint(self) -> str:
        """Hash of policy, value, β and the truncation."""
        parts = self.policy.fingerprint, self.value.fingerprint, self.beta, self.top
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def sampling(self) -> Sampling:
        """The policy's: its temperature is in π, not in V/β."""
        return self.policy.sampling

    @property
    def vocabulary(self) -> str:
        """The policy's."""
        return self.policy.vocabulary

    @property
    def stop_ids(self) -> frozenset[int]:
        """The policy's."""
        return self.policy.stop_ids

    def response(self, token_ids: Sequence[int], log_prob: float) -> Response:
        """A response from its tokens."""
        return self.policy.response(token_ids, log_prob)

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> "ControlledStream":
        """Start writing a response to each of R prompts, after its beginning if there is one."""
        begun = [()] * len(prompts) if beginnings is None else [tuple(b) for b in beginnings]
        inner = self.policy.stream(prompts, begun)
        return ControlledStream(inner, self.value, self.beta, self.top, list(prompts), begun)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return streams.draw(self, prompts, None, k, rng)

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
        return streams.draw(self, prompts, beginnings, k, rng, limit=limit)

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π'(y|x). Nats; −∞ where the truncation leaves no such token."""
        return streams.score(self, prompts, responses)

    def greedy(self, prompts: Sequence[str]) -> list[Response]:
        """To each prompt the response whose every token is the likeliest."""
        return streams.greedy(self, prompts)

    def beam(self, prompts: Sequence[str], width: int) -> list[list[Response]]:
        """The likeliest responses that a search with `width` beams finds, best first."""
        return beam(self, prompts, width)


@final
class ControlledStream:
    """R responses being written side by side under a controlled law."""

    def __init__(
        self,
        inner: TokenStream,
        value: Value,
        beta: float,
        top: int | None,
        prompts: list[str],
        beginnings: list[tuple[int, ...]],
    ) -> None:
        self._inner, self._value, self._beta, self._top = inner, value, beta, top
        self._prompts, self._begun = prompts, beginnings
        self._law: np.ndarray | None = None

    def log_law(self) -> Float[np.ndarray, "R V"]:
        """log π'(·|x, y) of each row's next token. Nats, normalised."""
        if self._law is None:
            self._law = self._steered(self._inner.log_law())
        return self._law

    def _steered(self, law: Float[np.ndarray, "R V"]) -> Float[np.ndarray, "R V"]:
        rows, tokens = np.nonzero(self._valued(law))
        longer = [
            (*self._begun[row], token)
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)
        ]
        values = np.asarray(self._value([self._prompts[row] for row in rows], longer), float)
        self._refuse(values, longer)
        steered = np.full(law.shape, -np.inf)
        steered[rows, tokens] = law[rows, tokens] + values / self._beta
        steered -= steered.max(1, keepdims=True)
        steered -= np.log(np.exp(steered).sum(1, keepdims=True))
        return steered

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Row r becomes what row `rows[r]` was, with `tokens[r]` appended."""
        self._inner.extend(rows, tokens)
        self._prompts = [self._prompts[row] for row in rows]
        pairs = zip(rows, tokens, strict=True)
        self._begun = [(*self._begun[row], int(token)) for row, token in pairs]
        self._law = None

    def _valued(self, law: Float[np.ndarray, "R V"]) -> np.ndarray:
        """Which tokens are valued: those that can occur, or the likeliest `top` of them."""
        occurs = law > -np.inf
        if self._top is None:
            _refuse_many(self._value, law.shape[1])
        if self._top is None or self._top >= law.shape[1]:
            return occurs
        likeliest = np.argpartition(law, -self._top, axis=1)[:, -self._top :]
        kept = np.zeros(law.shape, dtype=bool)
        np.put_along_axis(kept, likeliest, True, axis=1)
        return occurs & kept

    def _refuse(
        self, values: Float[np.ndarray, "M"], beginnings: Sequence[tuple[int, ...]]
    ) -> None:
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f"the value {self._value.name} says {values[bad[0]]} of the tokens "
                f"{beginnings[bad[0]]}; a law cannot be steered by it. Repair the value."
            )


def _refuse_many(value: Value, tokens: int) -> None:
    """Refuse to ask what is no table about every one of so many tokens."""
    if tokens > _READABLE and not isinstance(value, TabularValue):
        raise ValueError(
            f"every step would ask {value.name} about each of {tokens} tokens, because top is "
            "None; a policy of that many is steered by its likeliest tokens: give top, 8 to 32."
        )


def controlled(
    policy: LogitPolicy,
    value: Value,
    beta: float,
    *,
    top: int | None = None,
    aligned: Alignment | None = None,
) -> Controlled:
    """The policy whose next-token law is π·exp(V/β)/Z.

    Args:
        policy: what is steered; its next-token laws are read.
        value: of beginnings one token longer: exact (:class:`.TabularValue`), learned
            (:class:`.ValueHead`), or the reward of the text so far (:class:`.RewardValue`).
        beta: KL coefficient, in the value's unit. > 0. → ∞ is the policy itself.
        top: value only the `top` likeliest tokens at each step and never write another. Another
            law, not only a faster one: what is steered is then the policy truncated to its
            `top` likeliest tokens, and what it never writes is not found however good it is.
        aligned: names the reward that the value is of, for those who would tilt by it again.

    Raises:
        ValueError: β that is not positive or not that of `aligned`, a count that is none, or
            another vocabulary.
        TypeError: a policy that shows no next-token laws.

    Reference:
        Controlled Decoding from Language Models (arXiv:2310.17022), the token-wise law; there with
        the mean value. The soft value is the one that makes it exact.

    Example:
        >>> from infalign.decoding.search import TabularValue
        >>> from infalign.policies import TabularLM
        >>> lm = TabularLM.random(("x",), ("a", "b"), 3, np.random.default_rng(0))
        >>> rewards = np.array([[float(text.count("a")) for text in lm.texts()]])
        >>> steered = controlled(lm, TabularValue.soft(lm, rewards, beta=0.5), beta=0.5)
        >>> everything = [[lm.response(ids, 0.0) for ids in lm.sequences]]
        >>> masses = np.exp(steered.log_prob(["x"], everything))
        >>> bool(np.allclose(masses, lm.tilt(rewards, beta=0.5).masses, atol=1e-12))
        True
    """
    steered = Controlled(policy, value, beta, top, aligned)
    if aligned is not None:
        warn_of_second_tilt(policy, aligned.reward, aligned.transform, beta, "the value")
    return steered
