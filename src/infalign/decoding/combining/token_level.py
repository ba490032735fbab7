"""Several policies as one, token by token."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Literal, cast, final

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from infalign.decoding.combining.divergence import Divergence, excess
from infalign.decoding.combining.divergences import ReverseKL
from infalign.policies import beams, streams
from infalign.policies.alignment import Alignment, alignment_of_product
from infalign.protocols import LogitPolicy, Response, Sampling, TokenStream

__all__ = ["CombinedPolicy", "CombinedStream"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class CombinedPolicy:
    """One policy made of M: its next-token law is a formula of theirs. :func:`.mod` makes it.

    At level `token` the law is the optimum for the combined reward among next tokens, constant
    included. At level `prefix` it is ∝ the paper's formula at the probabilities of the whole
    beginning, constant dropped; :meth:`beam` then ranks by that formula. For the reverse KL both
    laws are the same.

    Args:
        policies: M, of one vocabulary and sampling law.
        weights: of f′(π_i/π_ref), > 0.
        reference: what they were aligned from; None where the formula does not need it.
        divergence: by which they were kept near the reference.
        level: see above.
        rows: responses written side by side.
    """

    policies: tuple[LogitPolicy, ...]
    weights: tuple[float, ...]
    reference: LogitPolicy | None
    divergence: Divergence
    level: Literal["token", "prefix"] = "token"
    rows: int = streams.ROWS

    @property
    def members(self) -> tuple[LogitPolicy, ...]:
        """The policies, and the reference last if there is one."""
        return self.policies if self.reference is None else (*self.policies, self.reference)

    @property
    def aligned(self) -> Alignment | None:
        """By which rewards, if the members tell; None but for the reverse KL, where 1/β add up."""
        if not isinstance(self.divergence, ReverseKL):
            return None
        exponents = [*self.weights, 1 - sum(self.weights)][: len(self.members)]
        told = [getattr(member, "aligned", None) for member in self.members]
        return alignment_of_product(told, exponents)

    @property
    def name(self) -> str:
        """Weights and names of the policies."""
        parts = zip(self.weights, self.policies, strict=True)
        return " + ".join(f"{weight:.3g} {policy.name}" for weight, policy in parts)

    @property
    def fingerprint(self) -> str:
        """Hash of the members and of how they are combined."""
        told = [member.fingerprint for member in self.members]
        how = (self.weights, self.divergence, self.level, self.reference is None)
        return hashlib.sha256(repr((told, how)).encode()).hexdigest()

    @property
    def sampling(self) -> Sampling:
        """That of every member."""
        return self.policies[0].sampling

    @property
    def vocabulary(self) -> str:
        """That of every member."""
        return self.policies[0].vocabulary

    @property
    def stop_ids(self) -> frozenset[int]:
        """Those of every member."""
        return self.policies[0].stop_ids

    def response(self, token_ids: Sequence[int], log_prob: float) -> Response:
        """A response from its tokens."""
        return self.policies[0].response(token_ids, log_prob)

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> "CombinedStream":
        """Start writing a response to each of R prompts."""
        begun = streams.check_beginnings(self, prompts, beginnings)
        totals = np.zeros((len(self.members), len(prompts)))
        if self.level == "prefix" and any(begun):
            totals = self.totals(prompts, begun)
        members = [_Normalised(member).stream(prompts, begun) for member in self.members]
        return CombinedStream(self, members, totals)

    def totals(
        self, prompts: Sequence[str], begun: Sequence[tuple[int, ...]]
    ) -> Float[np.ndarray, "M1 R"]:
        """log π_m of each beginning under each member."""
        totals = np.zeros((len(self.members), len(begun)))
        some = [row for row, one in enumerate(begun) if one]
        told = [[Response("", begun[row], finish_reason="limit")] for row in some]
        if some:
            totals[:, some] = self.member_log_probs([prompts[row] for row in some], told)[:, :, 0]
        return totals

    def member_log_probs(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "M1 P K"]:
        """log π_m of responses, or of their beginnings, under each member."""
        members = [cast(LogitPolicy, _Normalised(member)) for member in self.members]
        return np.stack([streams.score(m, prompts, responses, rows=self.rows) for m in members])

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return streams.draw(self, prompts, None, k, rng, rows=self.rows)

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
        return streams.draw(self, prompts, beginnings, k, rng, limit=limit, rows=self.rows)

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π(y|x), exact. Nats."""
        return streams.score(self, prompts, responses, rows=self.rows)

    def greedy(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> list[Response]:
        """To each prompt the response whose every token is the likeliest."""
        return streams.greedy(self, prompts, beginnings, rows=self.rows)

    def beam(
        self,
        prompts: Sequence[str],
        width: int,
        *,
        beginnings: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Response]]:
        """To each prompt ≤ `width` responses, best first: by log π, or by the `prefix` formula.

        The `prefix` formula of a whole response is that of the optimum, its constant dropped. With
        as many beams as there are beginnings, the first is the highest response there is.
        """
        if self.level == "token":
            return beams.beam(self, prompts, width, beginnings=beginnings, rows=self.rows)
        return beams.beam(
            self,
            prompts,
            width,
            beginnings=beginnings,
            scores=_scores,
            falls=excess(self.weights) <= 0,
            rows=self.rows,
        )

    def combine(
        self, log_laws: Float[np.ndarray, "M1 *rows"], how: Literal["law", "score"]
    ) -> Float[np.ndarray, "*rows"]:
        """The formula on the members' log-probabilities: solved, or its constant dropped."""
        weights = np.array(self.weights)
        base = np.zeros_like(log_laws[0]) if self.reference is None else log_laws[-1]
        return getattr(self.divergence, how)(log_laws[: len(weights)], base, weights)


@dataclasses.dataclass(frozen=True)
class _Normalised:
    """A member that may show logits: what is added to all tokens alike must change nothing."""

    policy: LogitPolicy

    @property
    def sampling(self) -> Sampling:
        return self.policy.sampling

    @property
    def stop_ids(self) -> frozenset[int]:
        return self.policy.stop_ids

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> "_NormalisedStream":
        return _NormalisedStream(self.policy.stream(prompts, beginnings))


@dataclasses.dataclass(frozen=True)
class _NormalisedStream:
    stream: TokenStream

    def log_law(self) -> Float[np.ndarray, "R V"]:
        law = np.asarray(self.stream.log_law(), dtype=np.float64)
        return law - np.asarray(logsumexp(law, axis=1, keepdims=True))

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        self.stream.extend(rows, tokens)


@final
class CombinedStream:
    """R responses being written side by side by all members at once.

    Args:
        policy: says how laws are combined.
        members: a stream of each member.
        totals: log-probability of each row's beginning under each member; at level `token` it may
            leave out what was there at the start.
    """

    def __init__(
        self,
        policy: CombinedPolicy,
        members: Sequence[TokenStream],
        totals: Float[np.ndarray, "M1 R"],
    ) -> None:
        self._policy, self._members, self.totals = policy, list(members), totals
        self._laws: np.ndarray | None = None
        self._law: np.ndarray | None = None

    def member_laws(self) -> Float[np.ndarray, "M1 R V"]:
        """Each member's log-law of each row's next token."""
        if self._laws is None:
            self._laws = np.stack([member.log_law() for member in self._members])
        return self._laws

    def scores(self) -> Float[np.ndarray, "R V"]:
        """The formula at the probability of each row with each next token, its constant dropped."""
        return self._policy.combine(self.totals[:, :, None] + self.member_laws(), "score")

    def log_law(self) -> Float[np.ndarray, "R V"]:
        """log π(·|x, y) of each row's next token. Nats, normalised."""
        if self._law is None:
            if self._policy.level == "token":
                self._law = self._policy.combine(self.member_laws(), "law")
            else:
                scores = self.scores()
                self._law = scores - np.asarray(logsumexp(scores, axis=1, keepdims=True))
        return self._law

    def extend(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Row r becomes what row `rows[r]` was, with `tokens[r]` appended."""
        kept, added = np.asarray(rows, dtype=int), np.asarray(tokens, dtype=int)
        self.totals = self.totals[:, kept] + self.member_laws()[:, kept, added]
        self._laws = self._law = None
        for member in self._members:
            member.extend(rows, tokens)


def _scores(stream: TokenStream, *_: np.ndarray) -> Float[np.ndarray, "R V"]:
    """What beams of level `prefix` are ranked by."""
    assert isinstance(stream, CombinedStream)
    return stream.scores()
