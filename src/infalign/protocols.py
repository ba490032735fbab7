"""The contracts that cross rooms, on one page: Sampler, Policy, Reward.

Each stage asks for the weakest contract that does its job: collecting rollouts needs a
:class:`Sampler`, measuring KL needs a :class:`Policy`, calibrating needs a :class:`Reward`. At
inference some procedures ask for more: to go on from the beginning of a response
(:class:`Continuer`), to fill gaps in one (:class:`Redrawer`), or for next-token laws
(:class:`LogitPolicy`).
They are structural: anything with the right methods fits, nothing has to be inherited.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

__all__ = [
    "Continuer",
    "LogitPolicy",
    "Policy",
    "Redrawer",
    "Response",
    "Reward",
    "Sampler",
    "Sampling",
    "TokenStream",
]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How responses are drawn. Part of the policy: other settings are another policy.

    Example:
        >>> Sampling(temperature=0.8, max_new_tokens=12, stop=('"',)).temperature
        0.8
    """

    temperature: float = 1.0
    """Logits are divided by it, in sampling and in log-probabilities alike. > 0."""
    max_new_tokens: int = 128
    """Length cap in tokens, end-of-sequence included. ≥ 1."""
    stop: tuple[str, ...] = ()
    """A token whose text contains one of these ends the response, as end-of-sequence does."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(
                f"temperature is {self.temperature}; it must be > 0, because log-probabilities "
                "are taken under the sampling law. Use a small positive value for near-greedy."
            )
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class Response:
    """One answer to one prompt."""

    text: str
    """What a reader (and a reward) sees: without the stop string or special tokens."""
    token_ids: tuple[int, ...] = ()
    """Sampled tokens, the terminating one included; empty where a sampler has no tokens."""
    log_prob: float = float("nan")
    """Summed over all of `token_ids`, under the sampling law. Nats."""
    finish_reason: Literal["stop", "length", "limit"] = "stop"
    """`length`: cut off by `max_new_tokens`; `limit`: a beginning, which can be continued."""


@runtime_checkable
class Sampler(Protocol):
    """Answers prompts."""

    @property
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the law except `sampling`: weights or revision."""
        ...

    @property
    def sampling(self) -> Sampling:
        """The sampling law's settings."""
        ...

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts: a list of P lists of K."""
        ...


@runtime_checkable
class Policy(Sampler, Protocol):
    """A sampler that knows the probability of what it says."""

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π(y|x) under the sampling law, end-of-sequence included. Nats."""
        ...


@runtime_checkable
class Continuer(Sampler, Protocol):
    """A sampler that goes on from the beginning of a response."""

    def continue_from(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[Sequence[int]],
        k: int,
        rng: np.random.Generator,
        *,
        limit: int | None = None,
    ) -> list[list[Response]]:
        """K independent responses that begin so, to each of M pairs of a prompt and a beginning.

        An empty beginning is what :meth:`sample` does. `max_new_tokens` caps the whole response.

        Args:
            prompts: M.
            beginnings: M sequences of token ids, of responses that have not ended.
            k: responses drawn for each.
            rng: of the draws.
            limit: new tokens at most; what it cuts has the finish reason `limit`. None: none.

        Returns:
            Whole responses, the beginning included; their `log_prob` is that of the new tokens.

        Raises:
            ValueError: a beginning that has ended or leaves no room.
        """
        ...


@runtime_checkable
class Redrawer(Sampler, Protocol):
    """A sampler that fills gaps in a response, as masked models do."""

    def redraw(
        self,
        prompts: Sequence[str],
        erased: Sequence[Sequence[int | None]],
        k: int,
        rng: np.random.Generator,
    ) -> list[list[Response]]:
        """K independent fillings of each of M responses with gaps.

        Args:
            prompts: M.
            erased: M sequences of token ids, None at each site that is to be drawn given the rest.
            k: fillings drawn for each.
            rng: of the draws.

        Returns:
            Whole responses, what was kept included; their `log_prob` is that of the new tokens.

        Raises:
            ValueError: a sequence of another length than the sampler's, or an unknown token.
        """
        ...


@runtime_checkable
class TokenStream(Protocol):
    """R responses being written side by side, token by token."""

    def log_law(self) -> Float[np.ndarray, "R V"]:
        """log π(·|x, y) of each row's next token, under the sampling law. Nats, normalised."""
        ...

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Row r becomes what row `rows[r]` was, with `tokens[r]` appended.

        Rows may be dropped, reordered and repeated, as beams are.
        """
        ...


@runtime_checkable
class LogitPolicy(Policy, Protocol):
    """A policy whose next-token laws can be read."""

    @property
    def vocabulary(self) -> str:
        """Hash of what each token id means: policies can be combined where it is the same."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a response."""
        ...

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> TokenStream:
        """Start writing a response to each of R prompts, after its beginning if there is one."""
        ...

    def response(self, token_ids: Sequence[int], log_prob: float) -> Response:
        """A response from its tokens, the terminating one included."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Maps text to real numbers, higher is better."""

    @property
    def name(self) -> str:
        """Names the column in the store and in the report."""
        ...

    def __call__(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]]
    ) -> Float[np.ndarray, "P K"]:
        """Rewards of K response texts to each of P prompts."""
        ...
