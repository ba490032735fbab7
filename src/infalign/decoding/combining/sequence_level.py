"""Several policies as one on whole responses: token-level draws, resampled towards the optimum."""

import dataclasses
import hashlib
import zlib
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from infalign.decoding.combining.divergence import Level, excess, log_ratios
from infalign.decoding.combining.proposals import Proposals, draw_numbers, propose
from infalign.decoding.combining.token_level import CombinedPolicy
from infalign.policies import streams
from infalign.policies.alignment import Alignment
from infalign.policies.counts import refuse_draw
from infalign.protocols import Response, Sampling

__all__ = ["SequencePolicy"]


class _Constants(NamedTuple):
    """What the pilot draws tell of each prompt."""

    top: Float[np.ndarray, "R"]
    log_ratio: Float[np.ndarray, "R"]
    """With `top` the level of Z; 0 where Z is a factor."""
    log_total: Float[np.ndarray, "R"]
    """The log of what is left to divide by."""
    share: Float[np.ndarray, "R"]
    """Of the draws, those that count."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class SequencePolicy:
    """π*(y|x) = π_ref·(f′)⁻¹(Σ w_i f′(π_i/π_ref) − Z) on whole responses: the optimum itself.

    Drawing: a token-level draw, then `rounds` times choose among it and `tries` fresh ones with
    probability ∝ π*(y)/q(y). Every round leaves π* invariant. q is half the token-level law and
    half the members' in equal parts, so that no weight is beyond bounds: for the reverse KL with
    weights that sum to 1, π*/q ≤ 2M/Z, as a geometric mean is at most an arithmetic one. How fast
    a chain gets there: see :meth:`effective_draws`.

    For the reverse KL π* is known up to a factor, so nothing else is approximate. For other
    divergences Z is inside the formula: it is estimated once for each prompt, from `pilot` seeded
    draws, with error O(1/√pilot); a response whose mass would come out above 1 gets 1.

    The price is 1 + tries·rounds responses each, 241 by default. Once for each prompt `pilot` more,
    512, are written: for the reverse KL they only tell the factor in log-probabilities, so they
    wait until one is told; continuing beginnings and cut draws do without.

    The optima of the forward KL and Jensen-Shannon may say often what every member says rarely:
    then no draws of theirs find it, and :meth:`effective_draws` is near 0.

    Next-token laws of π* would need a sum over all that may follow: it has no `stream`. Constants
    are kept: policies must not be trained on meanwhile.

    Args:
        proposal: the same policies at level `token`.
        tries: fresh draws in a round. ≥ 1.
        rounds: ≥ 1.
        pilot: draws for each prompt that estimate its constant. ≥ 1.
        seed: of the pilot draws: the same law every time.
    """

    proposal: CombinedPolicy
    tries: int = 8
    rounds: int = 30
    pilot: int = 512
    seed: int = 0
    _pilots: dict[str, tuple[float, ...]] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def aligned(self) -> Alignment | None:
        """As that of the proposal."""
        return self.proposal.aligned

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
        refuse_draw(k, limit)
        begun = streams.check_beginnings(self.proposal, prompts, beginnings)
        texts = [prompt for prompt in prompts for _ in range(k)]
        starts = [one for one in begun for _ in range(k)]
        given = np.repeat(self.proposal.totals(prompts, begun), k, axis=1)
        uniforms, writers = draw_numbers(self.proposal, len(texts), rng)
        writers[:] = -1  # the first draw is of the token level alone
        state = propose(self.proposal, texts, starts, given, uniforms, writers)
        log_weight = self._log_target(texts, state.totals) - state.log_q
        for _ in range(self.rounds):
            state, log_weight = self._round(texts, starts, given, state, log_weight, rng)
        new = [tuple(row[row >= 0].tolist()) for row in state.tokens]
        whole = [not s and len(n[:limit]) == len(n) for s, n in zip(starts, new, strict=True)]
        told, rows = np.full(len(texts), np.nan), np.flatnonzero(whole)
        told[rows] = self._log_prob([texts[row] for row in rows], state.totals[:, rows])
        made = [
            self.proposal.response((*start, *tokens[:limit]), float(nats))
            for start, tokens, nats in zip(starts, new, told, strict=True)
        ]
        return [made[i * k : (i + 1) * k] for i in range(len(prompts))]

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π*(y|x). Nats. Exact but for a number per prompt, which the pilot draws estimate."""
        totals = self.proposal.member_log_probs(prompts, responses)
        texts = [text for text, row in zip(prompts, responses, strict=True) for _ in row]
        return self._log_prob(texts, totals.reshape(len(totals), -1)).reshape(totals.shape[1:])

    def effective_draws(self, prompts: Sequence[str]) -> Float[np.ndarray, "P"]:
        """Of each prompt's `pilot` draws, the share that counts: (Σw)²/(n·Σw²), w = π*/q. In (0,1].

        Near 1 the token level is nearly exact and few rounds will do; near 0 even many may not.
        """
        return self._constants(prompts).share

    def greedy(self, prompts: Sequence[str]) -> list[Response]:
        """To each prompt the best of one beam."""
        return [row[0] for row in self.beam(prompts, 1)]

    def beam(self, prompts: Sequence[str], width: int) -> list[list[Response]]:
        """To each prompt ≤ `width` responses, best first: beams of level `prefix`, ranked by π*.

        Beams of level `token` where the formula without its constant may have no value.
        """
        policy = self.proposal
        if policy.divergence.is_factor or excess(policy.weights) <= 0:
            policy = dataclasses.replace(policy, level="prefix")
        found = policy.beam(prompts, width)
        self._constants(prompts)  # of all prompts side by side, not one after the other below
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
        state: Proposals,
        log_weight: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[Proposals, np.ndarray]:
        """Each chain chooses among its state and `tries` fresh draws, by weight."""
        count, tries = len(texts), self.tries
        many = [text for text in texts for _ in range(tries)]
        begun = [start for start in starts for _ in range(tries)]
        numbers = draw_numbers(self.proposal, len(many), rng)
        fresh = propose(self.proposal, many, begun, np.repeat(given, tries, axis=1), *numbers)
        log_weights = self._log_target(many, fresh.totals) - fresh.log_q
        among = np.concatenate([log_weight[:, None], log_weights.reshape(count, tries)], axis=1)
        # The largest of log-weights with Gumbel noise is a choice by weight.
        chosen = (among + rng.gumbel(size=among.shape)).argmax(1)
        moved = np.flatnonzero(chosen > 0)
        source = moved * tries + chosen[moved] - 1
        tokens, log_q, totals = state.tokens.copy(), state.log_q.copy(), state.totals.copy()
        tokens[moved], log_q[moved] = fresh.tokens[source], fresh.log_q[source]
        totals[:, moved] = fresh.totals[:, source]
        return Proposals(tokens, log_q, totals), among[np.arange(count), chosen]

    def _log_target(
        self, texts: Sequence[str], totals: Float[np.ndarray, "M1 R"]
    ) -> Float[np.ndarray, "R"]:
        """log π* of whole responses; for the reverse KL up to a constant of the prompt."""
        policy = self.proposal
        if policy.divergence.is_factor:
            return policy.combine(totals, "score")
        weights, base = np.array(policy.weights), totals[-1]
        combined = policy.divergence.combined(log_ratios(totals[:-1], base), weights)
        constants = self._constants(texts)
        level = Level(constants.top, constants.log_ratio)
        ratio = policy.divergence.log_ratio(level, combined[:, None])[:, 0]
        return np.where(base > -np.inf, np.minimum(base + ratio, 0.0), -np.inf)

    def _log_prob(
        self, texts: Sequence[str], totals: Float[np.ndarray, "M1 R"]
    ) -> Float[np.ndarray, "R"]:
        """log π* of whole responses."""
        return self._log_target(texts, totals) - self._constants(texts).log_total

    def _constants(self, texts: Sequence[str]) -> _Constants:
        """Of each row's prompt; pilots are drawn where there were none."""
        new = [text for text in dict.fromkeys(texts) if text not in self._pilots]
        at_once = max(1, self.proposal.rows // self.pilot)
        for first in range(0, len(new), at_once):
            self._draw_pilots(new[first : first + at_once])
        told = np.array([self._pilots[text] for text in texts], dtype=np.float64)
        return _Constants(*told.reshape(-1, len(_Constants._fields)).T)

    def _draw_pilots(self, prompts: Sequence[str]) -> None:
        """Side by side; each prompt's are seeded by itself, so that company changes nothing."""
        seeds = [[self.seed, zlib.crc32(prompt.encode())] for prompt in prompts]
        rngs = map(np.random.default_rng, seeds)
        numbers = [draw_numbers(self.proposal, self.pilot, rng) for rng in rngs]
        uniforms, writers = (np.concatenate(parts) for parts in zip(*numbers, strict=True))
        many = [prompt for prompt in prompts for _ in range(self.pilot)]
        none = np.zeros((len(self.proposal.members), len(many)))
        drawn = propose(self.proposal, many, [()] * len(many), none, uniforms, writers)
        for place, prompt in enumerate(prompts):
            own = slice(place * self.pilot, (place + 1) * self.pilot)
            self._pilots[prompt] = self._constant(drawn.totals[:, own], drawn.log_q[own])

    def _constant(
        self, totals: Float[np.ndarray, "M1 R"], log_q: Float[np.ndarray, "R"]
    ) -> tuple[float, float, float, float]:
        """A row of :class:`_Constants`, from one prompt's pilots."""
        policy, count = self.proposal, len(log_q)
        top = log_ratio = 0.0
        if policy.divergence.is_factor:
            log_weights = policy.combine(totals, "score") - log_q
        else:
            weights, base = np.array(policy.weights), totals[-1]
            combined = policy.divergence.combined(log_ratios(totals[:-1], base), weights)
            level = policy.divergence.level((base - log_q - np.log(count))[None], combined[None])
            ratio = policy.divergence.log_ratio(level, combined[None])[0]
            log_weights = base + ratio - log_q
            top, log_ratio = float(level.top[0]), float(level.log_ratio[0])
        total = float(np.asarray(logsumexp(log_weights)))
        squares = float(np.asarray(logsumexp(2 * log_weights)))
        return top, log_ratio, total - np.log(count), float(np.exp(2 * total - squares)) / count
