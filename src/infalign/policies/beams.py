"""Beam search over any stream of next-token laws."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from infalign.policies.counts import refuse_count
from infalign.policies.streams import ROWS, check_beginnings
from infalign.protocols import LogitPolicy, Response, TokenStream

__all__ = ["Scores", "beam"]

Scores = Callable[
    [TokenStream, Float[np.ndarray, "R V"], Float[np.ndarray, "R"]], Float[np.ndarray, "R V"]
]
"""The score of each row with each next token: from the stream, its law, the rows' scores so far."""


@dataclasses.dataclass(frozen=True)
class _Beam:
    """A response on its way."""

    score: float
    log_prob: float
    tokens: tuple[int, ...]


def _summed(stream: TokenStream, law: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The log-probability of the response so far."""
    return scores[:, None] + law


def beam(
    policy: LogitPolicy,
    prompts: Sequence[str],
    width: int,
    *,
    beginnings: Sequence[Sequence[int]] | None = None,
    scores: Scores = _summed,
    falls: bool = True,
    rows: int = ROWS,
) -> list[list[Response]]:
    """The responses of highest score that a search with `width` beams finds, best first.

    At each step the `width` highest beams that have not ended go on; those that ended are kept if
    they were among the `width` highest of all. With at least as many beams as there are beginnings
    the first answer is the highest response there is; with one beam it is the greedy response.

    Args:
        policy: shows its laws.
        prompts: P.
        width: beams of each prompt.
        beginnings: P sequences of token ids that have not ended; None: all empty.
        scores: what is made high; None given: the log-probability.
        falls: whether a token never makes a score higher; then a search may stop early.
        rows: beams side by side: so many prompts at a time as fit, and at least one.

    Returns:
        To each prompt ≤ `width` responses, with their log-probabilities under the policy.

    Raises:
        ValueError: a count below 1, or a beginning that nothing can follow.
    """
    refuse_count(width, "width", "a beam search")
    refuse_count(rows, "rows", "a beam search")
    begun = check_beginnings(policy, prompts, beginnings)
    ended: list[list[_Beam]] = []
    at_once = max(1, rows // width)
    for first in range(0, len(begun), at_once):
        part = slice(first, first + at_once)
        ended += _search(policy, prompts[part], begun[part], width, scores, falls)
    return [[policy.response(one.tokens, one.log_prob) for one in beams] for beams in ended]


def _search(
    policy: LogitPolicy,
    prompts: Sequence[str],
    begun: Sequence[tuple[int, ...]],
    width: int,
    scores: Scores,
    falls: bool,
) -> list[list[_Beam]]:
    """Of prompts side by side, the beams that ended."""
    stream = policy.stream(prompts, begun)
    open_ = [[_Beam(0.0, 0.0, one)] for one in begun]
    ended: list[list[_Beam]] = [[] for _ in begun]
    while any(open_):
        flat = [one for beams in open_ for one in beams]
        law = stream.log_law()
        scored = scores(stream, law, np.array([one.score for one in flat]))
        rows, tokens, first = [], [], 0
        for p, beams in enumerate(open_):
            part = slice(first, first + len(beams))
            grown, ended[p] = _grow(policy, width, beams, scored[part], law[part], ended[p])
            if falls and len(ended[p]) >= width and grown:
                grown = grown if ended[p][-1].score < grown[0][1].score else []
            rows += [first + row for row, _ in grown]
            tokens += [one.tokens[-1] for _, one in grown]
            first, open_[p] = first + len(beams), [one for _, one in grown]
        if rows:
            stream.extend(rows, tokens)
    return ended


def _grow(
    policy: LogitPolicy,
    width: int,
    beams: list[_Beam],
    scores: Float[np.ndarray, "R V"],
    law: Float[np.ndarray, "R V"],
    ended: list[_Beam],
) -> tuple[list[tuple[int, _Beam]], list[_Beam]]:
    """One prompt's beams, a token longer: those that go on, with their row; those that ended."""
    if not beams:
        return [], ended
    is_end = np.zeros(scores.shape, dtype=bool)
    is_end[:, sorted(policy.stop_ids)] = True
    is_end |= np.array([len(one.tokens) + 1 for one in beams])[:, None] >= (
        policy.sampling.max_new_tokens
    )

    def longer(place: int) -> tuple[int, _Beam]:
        row, token = divmod(place, scores.shape[1])
        one = beams[row]
        nats = one.log_prob + float(law[row, token])
        return row, _Beam(float(scores[row, token]), nats, (*one.tokens, token))

    over = [longer(place)[1] for place in _top(scores, width) if is_end.ravel()[place]]
    ended = sorted([*ended, *over], key=lambda one: -one.score)[:width]
    return [longer(place) for place in _top(np.where(is_end, -np.inf, scores), width)], ended


def _top(scores: Float[np.ndarray, "R V"], count: int) -> list[int]:
    """Places of the highest, best first, the first among equals; none that cannot occur."""
    flat = scores.ravel()
    if count < flat.size:
        bar = np.partition(flat, flat.size - count)[flat.size - count]
        places = np.flatnonzero(flat >= bar)
    else:
        places = np.arange(flat.size)
    places = places[flat[places] > -np.inf]
    return places[np.argsort(-flat[places], kind="stable")][:count].tolist()
