"""Several policies as one on whole responses: token-level draws, resampled towards the optimum."""

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from infalign.decoding.combining.divergences import Level, log_ratios
from infalign.decoding.combining.token_level import CombinedPolicy, CombinedStream
from infalign.policies import streams
from infalign.protocols import Response, Sampling, TokenStream

__all__ = ["SequencePolicy"]


class _Proposals(NamedTuple):
    """Responses drawn, and what every member says about them."""

    tokens: Int[np.ndarray, "R T"]
    log_q: Float[np.ndarray, "R"]
    totals: Float[np.ndarray, "M1 R"]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class SequencePolicy:
    """π*(y|x) = π_ref·(f′)⁻¹(Σ w_i f′(π_i/π_ref) − Z) on whole responses: the optimum itself.

    Drawing: a token-level draw, then `rounds` times choose among it and `tries` fresh ones with
    probability ∝ π*(y)/q(y). Every round leaves π* invariant. q is half the token-level law and
    half the members' in equal parts, so that no weight is beyond bounds: for the reverse KL with
    weights that sum to 1, π*/q ≤ 2M/Z, as a geometric mean is at most an arithmetic one. How fast
    a chain gets there: see :meth:`effective_draws`. The price is 1 + tries·rounds responses each.

    For the reverse KL π* is known up to a factor, so nothing else is approximate. For other
    divergences Z is inside the formula: it is estimated once for each prompt, from `pilot` seeded
    draws, with error O(1/√pilot); a response whose mass would come out above 1 gets 1.

    The optima of the forward KL and Jensen-Shannon may say often what every member says rarely:
    then no draws of theirs find it, and :meth:`effective_draws` is near 0.

    Next-token laws of π* would need a sum over all that may follow: it has no `stream`. Constants
    are kept: policies must not be trained on meanwhile.

    Args:
        proposal: the same policies at level `token`.
        tries: fresh draws in a round. ≥ 1.
        rounds: ≥ 1.
        pilot: draws for each prompt that estimate its constant.
        seed: of the pilot draws: the same law every time.
    """

    proposal: CombinedPolicy
    tries: int = 8
    rounds: int = 30
    pilot: int = 512
    seed: int = 0
    _pilots: dict[str, tuple[Level, float, float]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def name(self) -> str:
        """Weights and names of the policies."""
        return self.proposal.name

    @property
    def fingerprint(self) -> str:
        """Hash of the proposal's, and of how its draws are resampled."""
        told = (self.proposal.fingerprint, self.tries, self.rounds, self.pilot, self.seed)
        return hashlib.sha256(repr(told).encode()).hexdigest()

    @property
    def sampling(self) -> Sampling:
        """That of every member."""
        return self.proposal.sampling

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return self.continue_from(prompts, [()] * len(prompts), k, rng)

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

        What a `limit` cuts is written whole first: only so is its law known. `log_prob` is that of
        :meth:`log_prob`; NaN after a beginning, or where cut.
        """
        if isinstance(k, bool) or k < 1 or (limit is not None and limit < 1):
            raise ValueError(f"k is {k} and limit {limit}; both must be at least 1.")
        begun = streams.check_beginnings(self.proposal, prompts, beginnings)
        texts = [prompt for prompt in prompts for _ in range(k)]
        starts = [one for one in begun for _ in range(k)]
        given = np.repeat(self.proposal.totals(prompts, begun), k, axis=1)
        state = self._propose(texts, starts, given, rng, mixed=False)
        height = self._log_target(texts, state.totals) - state.log_q
        for _ in range(self.rounds):
            state, height = self._round(texts, starts, given, state, height, rng)
        log_prob = np.array([self._constants(text)[1] for text in texts])
        log_prob = self._log_target(texts, state.totals) - log_prob
        made = []
        for row, one in enumerate(starts):
            new = tuple(int(token) for token in state.tokens[row] if token >= 0)
            known = not one and (limit is None or len(new) <= limit)
            told = float(log_prob[row]) if known else float("nan")
            made.append(self.proposal.response((*one, *new[:limit]), told))
        return [made[i * k : (i + 1) * k] for i in range(len(prompts))]

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π*(y|x). Nats. Exact but for a number per prompt, which the pilot draws estimate."""
        totals = self.proposal.scores(prompts, responses)
        texts = [text for text, row in zip(prompts, responses, strict=True) for _ in row]
        heights = self._log_target(texts, totals.reshape(len(totals), -1))
        constants = np.array([self._constants(text)[1] for text in texts])
        return (heights - constants).reshape(totals.shape[1:])

    def effective_draws(self, prompts: Sequence[str]) -> Float[np.ndarray, "P"]:
        """Of each prompt's `pilot` draws, the share that counts: (Σw)²/(n·Σw²), w = π*/q. In (0,1].

        Near 1 the token level is nearly exact and few rounds will do; near 0 even many may not.
        """
        return np.array([self._constants(text)[2] for text in prompts])

    def greedy(self, prompts: Sequence[str]) -> list[Response]:
        """To each prompt the best of one beam."""
        return [row[0] for row in self.beam(prompts, 1)]

    def beam(self, prompts: Sequence[str], width: int) -> list[list[Response]]:
        """To each prompt ≤ `width` responses, best first: beams of level `prefix`, ranked by π*."""
        found = dataclasses.replace(self.proposal, level="prefix").beam(prompts, width)
        ranked = []
        for prompt, row in zip(prompts, found, strict=True):
            scores = self.log_prob([prompt], [row])[0]
            order = np.argsort(-scores, kind="stable")
            ranked.append([dataclasses.replace(row[i], log_prob=float(scores[i])) for i in order])
        return ranked

    def _round(
        self,
        texts: list[str],
        starts: list[tuple[int, ...]],
        given: np.ndarray,
        state: _Proposals,
        height: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[_Proposals, np.ndarray]:
        """Each chain chooses among its state and `tries` fresh draws, by weight."""
        count, tries = len(texts), self.tries
        fresh = self._propose(
            [text for text in texts for _ in range(tries)],
            [start for start in starts for _ in range(tries)],
            np.repeat(given, tries, axis=1),
            rng,
        )
        many = [text for text in texts for _ in range(tries)]
        heights = self._log_target(many, fresh.totals) - fresh.log_q
        among = np.concatenate([height[:, None], heights.reshape(count, tries)], axis=1)
        # The largest of log-weights with Gumbel noise is a choice by weight.
        chosen = (among + rng.gumbel(size=among.shape)).argmax(1)
        moved = np.flatnonzero(chosen > 0)
        source = moved * tries + chosen[moved] - 1
        tokens, log_q, totals = state.tokens.copy(), state.log_q.copy(), state.totals.copy()
        tokens[moved], log_q[moved] = fresh.tokens[source], fresh.log_q[source]
        totals[:, moved] = fresh.totals[:, source]
        return _Proposals(tokens, log_q, totals), among[np.arange(count), chosen]

    def _propose(
        self,
        texts: Sequence[str],
        starts: Sequence[tuple[int, ...]],
        given: Float[np.ndarray, "M1 R"],
        rng: np.random.Generator,
        *,
        mixed: bool = True,
    ) -> _Proposals:
        """One draw from q for each row; not `mixed`: at token level."""
        room, count = self.sampling.max_new_tokens, len(self.proposal.members)
        heights = rng.random((len(texts), room))
        writers = np.maximum(rng.integers(-count, count, len(texts)), -1)
        writers = writers if mixed else np.full(len(texts), -1)
        tokens = np.full((len(texts), room), -1)
        log_token, totals = np.zeros(len(texts)), given.copy()
        for first in range(0, len(texts), self.proposal.rows):
            part = slice(first, first + self.proposal.rows)
            own = {"heights": heights[part], "writers": writers[part], "totals": totals[:, part]}
            choose = functools.partial(_chosen, **own)
            written = streams.write(self.proposal, texts[part], starts[part], choose)
            tokens[part, : written.tokens.shape[1]] = written.tokens
            log_token[part] = written.log_prob
        members = np.asarray(logsumexp(totals - given, axis=0)) - np.log(count)
        log_q = np.logaddexp(log_token, members) - np.log(2)
        # Where the token level cannot go the optimum cannot, and writing was given up.
        totals[:, log_token == -np.inf] = -np.inf
        return _Proposals(tokens, log_q, totals)

    def _log_target(
        self, texts: Sequence[str], totals: Float[np.ndarray, "M1 R"]
    ) -> Float[np.ndarray, "R"]:
        """log π* of whole responses; for the reverse KL up to a constant of the prompt."""
        policy = self.proposal
        if policy.divergence.is_factor:
            return policy.combine(totals, "score")
        weights, base = np.array(policy.weights), totals[-1]
        combined = policy.divergence.combined(log_ratios(totals[:-1], base), weights)
        levels = [self._constants(text)[0] for text in texts]
        tops, ratios = (np.concatenate(parts) for parts in zip(*levels, strict=True))
        level = Level(tops, ratios)
        ratio = policy.divergence.log_ratio(level, combined[:, None])[:, 0]
        return np.where(base > -np.inf, np.minimum(base + ratio, 0.0), -np.inf)

    def _constants(self, prompt: str) -> tuple[Level, float, float]:
        """The level of Z, the log of what is left to divide by, the share of draws that count."""
        if prompt not in self._pilots:
            rng = np.random.default_rng([self.seed, zlib.crc32(prompt.encode())])
            count, policy = self.pilot, self.proposal
            none = np.zeros((len(policy.members), count))
            drawn = self._propose([prompt] * count, [()] * count, none, rng)
            if policy.divergence.is_factor:
                level = Level(np.zeros(1), np.zeros(1))
                log_weights = policy.combine(drawn.totals, "score") - drawn.log_q
            else:
                weights, base = np.array(policy.weights), drawn.totals[-1]
                combined = policy.divergence.combined(log_ratios(drawn.totals[:-1], base), weights)
                shares = (base - drawn.log_q - np.log(count))[None]
                level = policy.divergence.level(shares, combined[None])
                ratio = policy.divergence.log_ratio(level, combined[None])[0]
                log_weights = base + ratio - drawn.log_q
            total = float(np.asarray(logsumexp(log_weights)))
            squares = float(np.asarray(logsumexp(2 * log_weights)))
            share = float(np.exp(2 * total - squares)) / count
            self._pilots[prompt] = (level, total - float(np.log(count)), share)
        return self._pilots[prompt]


def _chosen(
    stream: TokenStream,
    law: np.ndarray,
    at: np.ndarray,
    open_: np.ndarray,
    step: int,
    *,
    heights: np.ndarray,
    writers: np.ndarray,
    totals: np.ndarray,
) -> np.ndarray:
    """Tokens at these heights of each writer's law, −1 the combined one.

    What each member gives them is added to `totals`.
    """
    assert isinstance(stream, CombinedStream)
    token = np.empty(len(open_), dtype=int)
    for writer in range(-1, len(totals)):
        own = np.flatnonzero(writers[open_] == writer)
        theirs = law if writer < 0 else stream.member_laws()[writer]
        if len(own):
            token[own] = streams.heights_to_tokens(theirs, at[own], heights[open_[own], step])
    totals[:, open_] += stream.member_laws()[:, at, token]
    return token
