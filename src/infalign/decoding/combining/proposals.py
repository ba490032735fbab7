"""Responses from which whole ones are chosen: half of the token level, half of the members."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from infalign.decoding.combining.token_level import CombinedPolicy, CombinedStream
from infalign.policies import streams
from infalign.protocols import TokenStream

__all__ = ["Proposals", "draw_numbers", "propose"]


class Proposals(NamedTuple):
    """Responses drawn, and what every member says about them."""

    tokens: Int[np.ndarray, "R T"]
    """New tokens; −1 after the end."""
    log_q: Float[np.ndarray, "R"]
    """Of the new tokens. Nats."""
    totals: Float[np.ndarray, "M1 R"]
    """Of whole responses, under each member. Nats."""


def draw_numbers(
    policy: CombinedPolicy, rows: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "R T"], Int[np.ndarray, "R"]]:
    """To each row a uniform for each token, and who writes it: −1, in half, the token level."""
    uniforms, count = rng.random((rows, policy.sampling.max_new_tokens)), len(policy.members)
    return uniforms, np.maximum(rng.integers(-count, count, rows), -1)


def propose(
    policy: CombinedPolicy,
    texts: Sequence[str],
    starts: Sequence[tuple[int, ...]],
    given: Float[np.ndarray, "M1 R"],
    uniforms: Float[np.ndarray, "R T"],
    writers: Int[np.ndarray, "R"],
) -> Proposals:
    """One draw for each row.

    Args:
        policy: at level `token`.
        texts: R prompts.
        starts: R beginnings.
        given: of the beginnings, under each member. Nats.
        uniforms, writers: of :func:`draw_numbers`; with these a draw is no longer random.
    """
    tokens = np.full(uniforms.shape, -1)
    log_token, totals = np.zeros(len(texts)), given.copy()
    for first in range(0, len(texts), policy.rows):
        part = slice(first, first + policy.rows)
        own = {"uniforms": uniforms[part], "writers": writers[part], "totals": totals[:, part]}
        choose = functools.partial(_chosen, **own)
        written = streams.write(policy, texts[part], starts[part], choose)
        tokens[part, : written.tokens.shape[1]] = written.tokens
        log_token[part] = written.log_prob
    members = np.asarray(logsumexp(totals - given, axis=0)) - np.log(len(totals))
    log_q = np.logaddexp(log_token, members) - np.log(2)
    # Where the token level cannot go the optimum cannot, and writing was given up.
    totals[:, log_token == -np.inf] = -np.inf
    return Proposals(tokens, log_q, totals)


def _chosen(
    stream: TokenStream,
    law: np.ndarray,
    at: np.ndarray,
    open_: np.ndarray,
    step: int,
    *,
    uniforms: np.ndarray,
    writers: np.ndarray,
    totals: np.ndarray,
) -> np.ndarray:
    """Tokens at these uniforms of each writer's law, −1 the combined one.

    What each member gives them is added to `totals`.
    """
    assert isinstance(stream, CombinedStream)
    token = np.empty(len(open_), dtype=int)
    for writer in range(-1, len(totals)):
        own = np.flatnonzero(writers[open_] == writer)
        theirs = law if writer < 0 else stream.member_laws()[writer]
        if len(own):
            token[own] = streams.heights_to_tokens(theirs, at[own], uniforms[open_[own], step])
    totals[:, open_] += stream.member_laws()[:, at, token]
    return token
