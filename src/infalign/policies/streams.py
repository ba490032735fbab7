"""Writing from next-token laws: draw, take the likeliest, search with beams, score.

What any policy that shows its next-token laws (:class:`infalign.protocols.LogitPolicy`) can do,
written once: policies that are made of others, token by token, only have to say their law.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from infalign.policies.counts import refuse_draw
from infalign.protocols import LogitPolicy, Response, TokenStream

__all__ = ["Written", "check_beginnings", "draw", "greedy", "heights_to_tokens", "score", "write"]

ROWS = 64
"""Responses written side by side where nobody says otherwise."""

Choose = Callable[
    [TokenStream, Float[np.ndarray, "D V"], Int[np.ndarray, "R"], Int[np.ndarray, "R"], int],
    Int[np.ndarray, "R"],
]
"""Next tokens, from: the stream and its laws; which of them is that of each row still open; which
rows these are; how many tokens are new."""


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
    prompts: Sequence[str],
    begun: Sequence[tuple[int, ...]],
    choose: Choose,
    limit: int | Int[np.ndarray, "R"] | None = None,
) -> Written:
    """Write until every response has ended, `limit` tokens are new, or one is impossible.

    Rows that are the same so far are one row of the stream: what they share is computed once.

    Args:
        policy: whose laws, stop tokens and length cap count.
        prompts: R.
        begun: R beginnings.
        choose: says the next tokens.
        limit: new tokens at most, of all rows or of each; None: none.
    """
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    pairs = zip(prompts, begun, strict=True)
    at = np.array([known.setdefault(pair, len(known)) for pair in pairs], dtype=int)
    stream = policy.stream([prompt for prompt, _ in known], [begin for _, begin in known])
    room = policy.sampling.max_new_tokens - np.array([len(begin) for begin in begun], dtype=int)
    room = room if limit is None else np.minimum(room, limit)
    tokens = np.full((len(begun), int(room.max(initial=0))), -1)
    log_prob, open_ = np.zeros(len(begun)), np.arange(len(begun))
    stops = np.array(sorted(policy.stop_ids))
    for step in range(tokens.shape[1]):
        law = stream.log_law()
        token = choose(stream, law, at, open_, step)
        nats = law[at, token]
        tokens[open_, step] = token
        log_prob[open_] += nats
        goes_on = ~np.isin(token, stops) & (step + 1 < room[open_]) & (nats > -np.inf)
        open_ = open_[goes_on]
        if not len(open_):
            break
        width = law.shape[1]
        distinct, at = np.unique(at[goes_on] * width + token[goes_on], return_inverse=True)
        stream.extend((distinct // width).tolist(), (distinct % width).tolist())
    return Written(tokens, log_prob)


def heights_to_tokens(
    law: Float[np.ndarray, "D V"], at: Int[np.ndarray, "R"], heights: Float[np.ndarray, "R"]
) -> Int[np.ndarray, "R"]:
    """The token at which the sum of row `at` of the laws passes each height in [0, 1)."""
    token, order = np.empty(len(at), dtype=int), np.argsort(at, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(at[order])) + 1):
        masses = np.exp(law[at[part[0]]])
        summed = masses.cumsum()
        found = np.searchsorted(summed, heights[part] * summed[-1], side="right")
        # A height may round up to the whole: then the last token that can occur.
        token[part] = np.minimum(found, np.flatnonzero(masses)[-1])
    return token


def check_beginnings(
    policy: LogitPolicy, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    """One beginning to each prompt, as tuples.

    Raises:
        ValueError: not as many as prompts, or one that has ended, leaves no room or has negative
            ids. How many tokens there are, the policy's own stream knows.
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
        if min(one, default=0) < 0:
            raise ValueError(
                f"a beginning {one[:20]} came with a negative token id; give the token ids of a "
                "response of this policy."
            )
    return begun


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
    refuse_draw(k, limit)
    begun = check_beginnings(policy, prompts, beginnings)
    room = policy.sampling.max_new_tokens if limit is None else limit
    room = min(room, policy.sampling.max_new_tokens)
    heights = rng.random((len(begun) * k, room))
    made: list[Response] = []
    for first in range(0, len(heights), rows):
        own = heights[first : first + rows]
        places = [i // k for i in range(first, first + len(own))]
        beginning = [begun[place] for place in places]

        def choose(_: object, law: np.ndarray, *rest: Any, own: np.ndarray = own) -> np.ndarray:
            at, open_, step = rest
            return heights_to_tokens(law, at, own[open_, step])

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
        made += _responses(policy, prompts[part], begun[part], _likeliest)
    return made


def _likeliest(_: object, law: np.ndarray, at: np.ndarray, *__: object) -> np.ndarray:
    """The first among equals."""
    return law.argmax(1)[at]


def _responses(
    policy: LogitPolicy,
    prompts: Sequence[str],
    begun: Sequence[tuple[int, ...]],
    choose: Choose,
    limit: int | None = None,
) -> list[Response]:
    """Written side by side."""
    written = write(policy, prompts, begun, choose, limit)
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
        lengths = np.array([len(ids) for _, ids in part])
        ids = np.array([[*own, *[-1] * (lengths.max() - len(own))] for _, own in part])

        def choose(*given: Any, ids: np.ndarray = ids) -> np.ndarray:
            _, _, _, open_, step = given
            return ids[open_, step]

        written = write(policy, [x for x, _ in part], [()] * len(part), choose, lengths)
        totals[first : first + rows] = written.log_prob
    return totals.reshape(len(prompts), -1)
