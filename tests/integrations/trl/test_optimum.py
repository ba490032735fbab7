"""Where GRPO comes to rest, by enumeration of all responses of a random tree of tokens."""

import itertools

import numpy as np
import pytest

WIDTH = 4


def soft(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def laws(length, beta, seed):
    """The reference, the tilt, and the law at which GRPO's expected gradient is zero.

    There log π/π_ref of a token is E_π[Φ | so far]/β up to a constant: the divergence of later
    tokens is no cost of this one. The tilt has β·log E_ref[exp(Φ/β) | so far] in its place.
    """
    rng = np.random.default_rng(seed)
    leaves = list(itertools.product(range(WIDTH), repeat=length))
    quantiles = dict(zip(leaves, (rng.permutation(len(leaves)) + 0.5) / len(leaves), strict=True))
    reference, policy = {}, {}
    value, soft_value = dict(quantiles), dict(quantiles)
    for depth in range(length - 1, -1, -1):
        for start in itertools.product(range(WIDTH), repeat=depth):
            reference[start] = law = rng.dirichlet(np.full(WIDTH, 2.0))
            nexts = [(*start, token) for token in range(WIDTH)]
            expected = np.array([value[one] for one in nexts])
            policy[start] = soft(np.log(law) + expected / beta)
            value[start] = policy[start] @ expected
            softly = np.array([soft_value[one] for one in nexts])
            soft_value[start] = beta * np.log(law @ np.exp(softly / beta))

    def of(table):
        return np.array([np.prod([table[y[:t]][y[t]] for t in range(length)]) for y in leaves])

    phi = np.array([quantiles[leaf] for leaf in leaves])
    return of(reference), soft(np.log(of(reference)) + phi / beta), of(policy)


def kl(law, other):
    return float((law * np.log(law / other)).sum())


def test_grpo_is_exact_for_one_token_and_goes_too_far_for_more():
    for seed in range(5):
        _, tilt, grpo = laws(1, 0.2, seed)
        assert kl(grpo, tilt) == pytest.approx(0, abs=1e-12)
    for length in (2, 3):
        found = [laws(length, 0.2, seed) for seed in range(20)]
        excess = [kl(grpo, ref) / kl(tilt, ref) - 1 for ref, tilt, grpo in found]
        assert 0.02 < np.mean(excess) < 0.3
        assert min(kl(grpo, tilt) for _, tilt, grpo in found) > 1e-4
