"""The reference of a policy with an adapter, as a policy of its own that shares the weights."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, final

import numpy as np
from jaxtyping import Float

from infalign.protocols import Continuer, LogitPolicy, Response, Sampling, TokenStream

__all__ = ["ReferenceView"]


class _WithReference(LogitPolicy, Continuer, Protocol):
    """What :class:`.CausalLM` is: within `reference()` it *is* the reference policy."""

    def reference(self) -> contextlib.AbstractContextManager[Any]: ...


@final
@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceView:
    """The policy with its adapter switched off, at the same time as the policy itself.

    So that both can be members of one combination, see :func:`infalign.decoding.mod`, at the price
    of one copy of the weights.

    Args:
        policy: a :class:`.CausalLM` with an adapter; without one it is its own reference.

    Raises:
        TypeError: a policy that has no `reference()`.
    """

    policy: _WithReference

    def __post_init__(self) -> None:
        if not hasattr(self.policy, "reference"):
            raise TypeError(
                f"{type(self.policy).__name__} has no reference() to switch to; give a CausalLM "
                "with a LoRA adapter, or the reference as a policy of its own."
            )

    @property
    def name(self) -> str:
        """The policy's, marked."""
        return f"{self.policy.name} (reference)"

    @property
    def fingerprint(self) -> str:
        """The reference's."""
        with self.policy.reference():
            return self.policy.fingerprint

    @property
    def sampling(self) -> Sampling:
        """The policy's."""
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
    ) -> TokenStream:
        """Start writing a response to each of R prompts; the stream keeps to the reference."""
        with self.policy.reference():
            return self.policy.stream(prompts, beginnings)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        with self.policy.reference():
            return self.policy.sample(prompts, k, rng)

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
        with self.policy.reference():
            return self.policy.continue_from(prompts, beginnings, k, rng, limit=limit)

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π_ref(y|x). Nats."""
        with self.policy.reference():
            return self.policy.log_prob(prompts, responses)
