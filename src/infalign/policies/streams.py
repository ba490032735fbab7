"""Writing from next-token laws: draw, take the likeliest, search with beams, score.

What any policy that shows its next-token laws (:class:`infalign.protocols.LogitPolicy`) can do,
written once: policies that are made of others, token by token, only have to say their law.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from infalign.protocols import LogitPolicy, Response, TokenStream

__all__ = ["Written", "check_beginnings", "draw", "greedy", "heights_to_tokens", "score", "write"]

ROWS = 64
"""Responses written side by side where nobody says otherwise."""

Choose = Callable[[Float[np.ndarray, "R V"], Int[np.ndarray, "R"], int], Int[np.ndarray, "R"]]
"""Tokens from the laws of the rows still open, which rows these are, and how many were new."""


class Written(NamedTuple):
    """R responses as arrays."""

    tokens: Int[np.ndarray, "R T"]
    """New tokens; −1 after the end."""
    log_prob: Float[np.ndarray, "R"]
    """Of the new tokens. Nats."""

    def of(self, row: int) -> tuple[int, ...]:
        """The new tokens of one response."""
        return tuple(int(token) for token in self.tokens[row] if token >= 0)


def write(
    policy: LogitPolicy,
    stream: TokenStream,
    starts: Int[np.ndarray, "R"],
    choose: Choose,
    limit: int | None = None,
) -> Written:
    """Write until every response has ended or `limit` tokens are new.

    Args:
        policy: whose stop tokens and length cap end a response.
        stream: R rows at their beginnings.
        starts: tokens of each beginning.
        choose: says the next tokens.
        limit: new tokens at most; None: none.
    """
    stops, room = np.array(sorted(policy.stop_ids)), policy.sampling.max_new_tokens - starts
    room = room if limit is None else np.minimum(room, limit)
    tokens = np.full((len(starts), int(room.max(initial=0))), -1)
    log_prob, open_ = np.zeros(len(starts)), np.arange(len(starts))
    for step in range(tokens.shape[1]):
        law = stream.log_law()
        token = choose(law, open_, step)
        tokens[open_, step] = token
        log_prob[open_] += law[np.arange(len(open_)), token]
        kept = np.flatnonzero(~np.isin(token, stops) & (step + 1 < room[open_]))
        open_ = open_[kept]
        if not len(open_):
            break
        stream.extend(kept.tolist(), token[kept].tolist())
    return Written(tokens, log_prob)


def heights_to_tokens(
    law: Float[np.ndarray, "R V"], heights: Float[np.ndarray, "R"]
) -> Int[np.ndarray, "R"]:
    """The token at which the summed law passes each height in [0, 1)."""
    summed = np.exp(law).cumsum(1)
    # A height may round up to the whole: then the last token that can occur.
    last = law.shape[1] - 1 - np.argmax(law[:, ::-1] > -np.inf, axis=1)
    return np.minimum((summed <= heights[:, None] * summed[:, -1:]).sum(1), last)


def check_beginnings(
    policy: LogitPolicy, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """One beginning to each prompt, as tuples.

    Raises:
        ValueError: not as many as prompts, or one that has ended or leaves no room.
    """
    given = [()] * len(prompts) if beginnings is None else beginnings
    begun = [tuple(int(i) for i in one) for one in given]
    if len(begun) != len(prompts):
        raise ValueError(f"{len(begun)} beginnings came for {len(prompts)} prompts; give one each.")
    cap, stops = policy.sampling.max_new_tokens, policy.stop_ids
    for one in begun:
        if len(one) >= cap or not stops.isdisjoint(one):
            raise ValueError(
                f"a beginning of {len(one)} tokens came that has ended or fills the length cap of "
                f"{cap}; nothing can follow it."
            )
    return begun


def _check_count(name: str, count: int) -> None:
    if isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} is {count}; it must be a whole number of at least 1.")


def draw(
    policy: LogitPolicy,
    prompts: Sequence[str],
    beginnings: Sequence[Sequence[int]] | None,
    k: int,
    rng: np.random.Generator,
    *,
    limit: int | None = None,
    rows: int = ROWS,
) -> list[list[Response]]:
    """K independent responses to each of M pairs of a prompt and a beginning: `continue_from`.

    How many are written side by side does not change them.

    Args:
        policy: shows its laws.
        prompts: M.
        beginnings: M sequences of token ids that have not ended; None: all empty.
        k: responses drawn for each.
        rng: of the draws: one number in [0, 1) a token.
        limit: new tokens at most; None: none.
        rows: responses side by side.

    Raises:
        ValueError: a count below 1, or a beginning that nothing can follow.
    """
    _check_count("k", k)
    _check_count("limit", 1 if limit is None else limit)
    begun = check_beginnings(policy, prompts, beginnings)
    room = policy.sampling.max_new_tokens if limit is None else limit
    room = min(room, policy.sampling.max_new_tokens)
    heights = rng.random((len(begun) * k, room))
    made: list[Response] = []
    for first in range(0, len(heights), rows):
        own = heights[first : first + rows]
        places = [i // k for i in range(first, first + len(own))]
        beginning = [begun[place] for place in places]

        def choose(law: np.ndarray, open_: np.ndarray, step: int, own: np.ndarray = own):
            return heights_to_tokens(law, own[open_, step])

        made += _responses(policy, [prompts[i] for i in places], beginning, choose, limit)
    return [made[i * k : (i + 1) * k] for i in range(len(begun))]


def greedy(
    policy: LogitPolicy,
    prompts: Sequence[str],
    beginnings: Sequence[Sequence[int]] | None = None,
    *,
    rows: int = ROWS,
) -> list[Response]:
    """To each prompt the response whose every token is the likeliest; the first among equals."""
    begun = check_beginnings(policy, prompts, beginnings)
    made: list[Response] = []
    for first in range(0, len(begun), rows):
        part = slice(first, first + rows)
        made += _responses(policy, prompts[part], begun[part], lambda law, *_: law.argmax(1))
    return made


def _responses(
    policy: LogitPolicy,
    prompts: Sequence[str],
    begun: Sequence[tuple[int, ...]],
    choose: Choose,
    limit: int | None = None,
) -> list[Response]:
    """Written side by side."""
    starts = np.array([len(one) for one in begun], dtype=int)
    written = write(policy, policy.stream(prompts, begun), starts, choose, limit)
    return [
        policy.response((*one, *written.of(row)), float(written.log_prob[row]))
        for row, one in enumerate(begun)
    ]


def score(
    policy: LogitPolicy,
    prompts: Sequence[str],
    responses: Sequence[Sequence[Response]],
    *,
    rows: int = ROWS,
) -> Float[np.ndarray, "P K"]:
    """log π(y|x) of K responses to each of P prompts. Nats; −∞ where the law has no such token.

    Raises:
        ValueError: a response without tokens, that goes on after its end or beyond the length cap.
    """
    flat = [(x, y.token_ids) for x, row in zip(prompts, responses, strict=True) for y in row]
    cap, stops = policy.sampling.max_new_tokens, policy.stop_ids
    for _, ids in flat:
        if not 0 < len(ids) <= cap or not stops.isdisjoint(ids[:-1]):
            raise ValueError(
                f"a response of {len(ids)} tokens came that is empty, goes on after its end or is "
                f"longer than {cap}; this policy cannot say it. Give responses with their token "
                "ids, sampled under the same length cap and stop tokens."
            )
    totals = np.zeros(len(flat))
    for first in range(0, len(flat), rows):
        part = flat[first : first + rows]
        longest = max(len(ids) for _, ids in part)
        ids = np.array([[*own, *[-1] * (longest - len(own))] for _, own in part])
        stream, open_ = policy.stream([x for x, _ in part]), np.arange(len(part))
        for step in range(longest):
            token = ids[open_, step]
            totals[first + open_] += stream.log_law()[np.arange(len(open_)), token]
            goes_on = ids[open_, step + 1] >= 0 if step + 1 < longest else np.zeros(0, bool)
            kept = np.flatnonzero(goes_on & (totals[first + open_[: len(goes_on)]] > -np.inf))
            if not len(kept):
                break
            open_ = open_[kept]
            stream.extend(kept.tolist(), token[kept].tolist())
    return totals.reshape(len(prompts), -1)
