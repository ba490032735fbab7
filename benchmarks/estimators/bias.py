"""Bias and spread of every estimator where the truth is known: a sum or an integral."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.calibration.rollouts import digest
from benchmarks.estimators.rivals import REWARDS, WIN_RATES
from infalign.evaluation import estimate, rewards_every_n, win_rates_every_n
from infalign.quantile.procedures import BestOfN
from infalign.quantile.tilting import TiltedPolicy, beta_for_atoms_kl, beta_for_kl, tilt_atoms
from infalign.quantile.transforms import Identity
from infalign.quantile.win_rate import atomic_win_rate, decoded_masses, win_rate

__all__ = ["Known", "answers", "continuous", "errors", "graded"]

KL = 1.0
"""Of the policy from the reference. Nats."""


@dataclasses.dataclass(frozen=True)
class Known:
    """A policy and a reference whose samples can be drawn and whose truth is known."""

    name: str
    """Of the law."""
    draw: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
    """m, rng → m rewards of the policy and of the reference, "P m" each."""
    win_rate: Callable[[int], Float[np.ndarray, "P"]]
    """N → best-of-N against best-of-N, per prompt."""
    reward: Callable[[int], Float[np.ndarray, "P"]]
    """N → mean reward of the reference's best of N, per prompt."""
    data: str = ""
    """Digest of the rewards that it lists, if it does."""


def continuous(prompts: int) -> Known:
    """Rewards Exponential(1) under the reference; the policy is the calibrated tilt at KL 1."""
    policy = TiltedPolicy(Identity(), beta_for_kl(Identity(), KL))

    def draw(m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ours, theirs = policy.sample((prompts, m), rng), rng.random((prompts, m))
        return -np.log1p(-ours), -np.log1p(-theirs)

    def harmonic(n: int) -> np.ndarray:
        return np.full(prompts, np.sum(1 / np.arange(1, n + 1)))

    return Known(
        "continuous", draw, lambda n: np.full(prompts, win_rate(policy, BestOfN(n))), harmonic
    )


def graded(prompts: int) -> Known:
    """Grades 0 to 4, rarely the best ones: ties everywhere."""
    grades = np.tile(np.arange(5.0), (prompts, 1))
    masses = np.tile([0.5, 0.25, 0.15, 0.07, 0.03], (prompts, 1))
    return _listed("graded", grades, masses, grades)


def answers(scores: Float[np.ndarray, "P C"]) -> Known:
    """Real answers of equal mass; the policy is their tilt by raw score, uneven over prompts."""
    return _listed("AlpacaEval", scores, np.full(scores.shape, 1 / scores.shape[1]), scores)


def _listed(name: str, rewards: np.ndarray, reference: np.ndarray, training: np.ndarray) -> Known:
    beta = beta_for_atoms_kl(reference, training, KL)
    policy = tilt_atoms(reference, training, beta)

    def draw(m: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ours, theirs = (_drawn(law, m, rng) for law in (policy, reference))
        return np.take_along_axis(rewards, ours, 1), np.take_along_axis(rewards, theirs, 1)

    def truth(n: int) -> np.ndarray:
        return atomic_win_rate(policy, reference, rewards, BestOfN(n))

    def best(n: int) -> np.ndarray:
        return (decoded_masses(reference, rewards, BestOfN(n)) * rewards).sum(1)

    return Known(name, draw, truth, best, digest(rewards))


def _drawn(law: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    """m places of each row, by the law: the inverse of its cumulative sum."""
    total = np.cumsum(law, axis=1)
    total[:, -1] = 1.0 + 1e-9
    return np.stack([(total <= rng.random((len(law), 1))).sum(1) for _ in range(m)], axis=1)


def errors(
    known: Known, m: int, ns: Sequence[int], repeats: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Of every estimator with m samples a side: bias ± standard error, spread, RMS error.

    The bias is a mean over prompts, its error clustered by prompt; the spread is that of single
    prompts' estimates around their own truths.
    """
    truths = {("win rate", n): known.win_rate(n) for n in ns}
    truths |= {("best reward", n): known.reward(n) for n in ns}
    sums: dict[tuple[str, str, int], list[np.ndarray]] = {}
    for _ in range(repeats):
        a, b = known.draw(m, rng)
        for quantity, estimator, n, values in _all(a, b, ns):
            error = values - truths[quantity, n]
            sums.setdefault((quantity, estimator, n), []).append(error)
    return [
        {
            "law": known.name,
            "m": m,
            "quantity": quantity,
            "n": n,
            "estimator": estimator,
            "truth": float(truths[quantity, n].mean()),
            **_summary(np.array(error)),
        }
        for (quantity, estimator, n), error in sums.items()
    ]


def _all(
    a: np.ndarray, b: np.ndarray, ns: Sequence[int]
) -> Iterator[tuple[str, str, int, np.ndarray]]:
    every, best = win_rates_every_n(a, b, ns=ns), rewards_every_n(b, ns=ns)
    for column, n in enumerate(ns):
        yield "win rate", "all subsets", n, every[:, column]
        yield "best reward", "all subsets", n, best[:, column]
        for name, rival in WIN_RATES.items():
            yield "win rate", name, n, rival(a, b, n)
        for name, rival in REWARDS.items():
            yield "best reward", name, n, rival(b, n)


def _summary(error: Float[np.ndarray, "R P"]) -> dict[str, float]:
    mean = estimate(error.mean(axis=0))
    rms = float(np.sqrt((error**2).mean()))
    return {"bias": mean.value, "se": mean.se, "sd": float(error.std()), "rms": rms}
