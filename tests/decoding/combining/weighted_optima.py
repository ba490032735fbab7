"""Policies each optimal for a reward of its own, found without the code under test."""

import numpy as np
from scipy.optimize import brentq

from infalign.policies import TabularLM

SLOPES = {  # f′, its inverse, and the least upper bound of f′
    "reverse_kl": (lambda x: np.log(x) + 1, lambda s: np.exp(s - 1)),
    "forward_kl": (lambda x: -1 / x, lambda s: -1 / s),
    "jsd": (lambda x: np.log(2 * x / (1 + x)), lambda s: np.exp(s) / (2 - np.exp(s))),
    0.5: (lambda x: (1 - x**-0.5) / 0.5, lambda s: (1 - 0.5 * s) ** -2.0),
}
GENERATORS = {  # f itself
    "reverse_kl": lambda x: x * np.log(x),
    "forward_kl": lambda x: -np.log(x),
    "jsd": lambda x: x * np.log(x) - (1 + x) * np.log((1 + x) / 2),
    0.5: lambda x: 2 * (x - 2 * x**0.5 + 1),
}
DIVERGENCES = tuple(SLOPES)


def reference_of(seed=0, prompts=("x",), depth=4):
    rng = np.random.default_rng(seed)
    return TabularLM.random(prompts, ("a", "b", "c"), depth, rng)


def optimum(masses, rewards, beta, divergence):
    """π_ref·(f′)⁻¹(R/β − Z), Z by root finding: the optimum of E[R] − β·D_f."""
    slope, inverse = SLOPES[divergence]
    made = []
    for base, row in zip(masses, rewards / beta, strict=True):
        top = row.argmax()
        low, high = row[top] - slope(1 / base[top]), row[top] - slope(1.0)

        def excess(z, base=base, row=row):
            return (base * inverse(row - z)).sum() - 1

        low = low if excess(low) > 0 else low - 1e-12 * abs(low)
        z = brentq(excess, low, high + 1e-9, xtol=1e-15, rtol=1e-15, maxiter=500)
        made.append(base * inverse(row - z))
    return np.array(made)


def members_of(reference, divergence="reverse_kl", scale=1.0, betas=(1.0, 1.0), seed=1):
    """Rewards "M P S" and the policies optimal for them."""
    rng = np.random.default_rng(seed)
    rewards = scale * rng.standard_normal((len(betas), *reference.masses.shape))
    policies = []
    for place, (row, beta) in enumerate(zip(rewards, betas, strict=True)):
        masses = optimum(reference.masses, row, beta, divergence)
        masses /= masses.sum(1, keepdims=True)
        policies.append(TabularLM.from_masses(reference, masses, f"policy {place}"))
    return rewards, policies


def law_over_sequences(policy, like):
    """π of every sequence, by the policy's own scoring."""
    every = [[like.response(ids, 0.0) for ids in like.sequences]] * len(like.prompts)
    return np.exp(policy.log_prob(like.prompts, every))


def total_variation(p, q):
    return 0.5 * np.abs(p - q).sum()
