"""Targets: towards which law a chain walks, as a log-weight on top of the policy's own.

A target is policy·exp(w): w = r/β for a raw reward, Φ(u)/β for a calibrated one, and the log of
what best-of-N changes, so that a chain imitates best-of-N at any compute.
"""

import dataclasses
from abc import ABC, abstractmethod
from typing import final

import numpy as np
from jaxtyping import Float
from scipy import special

from infalign.decoding.text_procedure import Ranks, Scored
from infalign.policies.alignment import compose_betas
from infalign.quantile.transforms import Log, Transform, refuse_beta

__all__ = [
    "BestOfNTilt",
    "CalibratedTilt",
    "RewardTilt",
    "Target",
    "best_of_n_log_ratio",
    "compose_betas",
]


class Target(ABC):
    """policy·exp(w)/Z. Members are frozen dataclasses: their fields are their identity."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human."""

    @property
    @abstractmethod
    def tilt(self) -> tuple[Transform | None, float]:
        """Φ (None: the reward itself) and β of w = Φ/β."""

    @abstractmethod
    def log_weight(self, scored: Scored) -> Float[np.ndarray, "K"]:
        """w of each text, up to a constant. NaN where it has no reward."""

    @property
    def needs_calibration(self) -> bool:
        """Whether it looks at quantiles or ranks."""
        return False


@final
@dataclasses.dataclass(frozen=True)
class RewardTilt(Target):
    """w = r/β: the aligned policy of the raw reward.

    β is in the reward's unit, so the same β means another strength with another reward; where that
    matters, calibrate.
    """

    beta: float = 1.0
    """KL coefficient. > 0; smaller is stronger."""

    def __post_init__(self) -> None:
        refuse_beta(self.beta)

    @property
    def name(self) -> str:
        return f"reward/{self.beta:g}"

    @property
    def tilt(self) -> tuple[Transform | None, float]:
        return None, self.beta

    def log_weight(self, scored: Scored) -> Float[np.ndarray, "K"]:
        return scored.rewards / self.beta


@final
@dataclasses.dataclass(frozen=True)
class CalibratedTilt(Target):
    """w = Φ(u)/β: β means the same with every reward and prompt.

    From ranks among K reference rewards, w is the posterior mean E[Φ(U)]/β of the true quantile U,
    finite even where Φ(0) is not; from a calibration that only gives quantiles, Φ(u)/β.
    """

    transform: Transform
    """Φ."""
    beta: float = 1.0
    """KL coefficient. > 0."""

    def __post_init__(self) -> None:
        refuse_beta(self.beta)

    @property
    def name(self) -> str:
        return f"{self.transform.name}/{self.beta:g}"

    @property
    def tilt(self) -> tuple[Transform | None, float]:
        return self.transform, self.beta

    @property
    def needs_calibration(self) -> bool:
        return True

    def log_weight(self, scored: Scored) -> Float[np.ndarray, "K"]:
        ranks = scored.ranks
        if ranks is None:
            with np.errstate(divide="ignore"):
                return self.transform(_quantiles(scored)) / self.beta
        below, ties, known = _known(ranks)
        means = self.transform.posterior_mean(below, ties, ranks.k)
        return np.where(known, means, np.nan) / self.beta


@final
@dataclasses.dataclass(frozen=True)
class BestOfNTilt(Target):
    """The law of best-of-N, as a tilt: w = log (F^N − F₋^N)/(F − F₋).

    F and F₋ are the reference's probability of a reward at most, and less than, this one. Without
    atoms w = (N − 1)·log u, the tilt by log u at β = 1/(N − 1).
    From ranks among K reference rewards exp w is the posterior mean E[N·V^(N−1)], with V ~
    Beta(r + 1, K − r + 1) at rank r and averaged over ties; as K grows, that is the exact ratio,
    atoms included. From a calibration that only gives quantiles, (N − 1)·log u at the mid-rank,
    which with atoms is exact at N = 2 only.

    Args:
        n: N > 1, not necessarily whole.

    Example:
        >>> ranks = Ranks(np.array([0, 1]), np.array([0, 0]), k=1)
        >>> scored = Scored(np.array([0.0, 1.0]), ranks=ranks)
        >>> np.exp(BestOfNTilt(2).log_weight(scored)).round(6).tolist()
        [0.666667, 1.333333]
    """

    n: float = 4
    """N > 1."""

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not (self.n > 1 and np.isfinite(self.n)):
            raise ValueError(
                f"n is {self.n}; best-of-n chooses among more than one, so n > 1 is needed "
                "(n = 1 is the policy itself)."
            )

    @property
    def name(self) -> str:
        return f"best-of-{self.n:g}"

    @property
    def tilt(self) -> tuple[Transform | None, float]:
        return Log(), 1 / (self.n - 1)

    @property
    def needs_calibration(self) -> bool:
        return True

    def log_weight(self, scored: Scored) -> Float[np.ndarray, "K"]:
        if scored.ranks is None:
            with np.errstate(divide="ignore"):
                return (self.n - 1) * np.log(_quantiles(scored))
        below, ties, known = _known(scored.ranks)
        n, k = self.n, scored.ranks.k
        # Sum of N·Γ(r + N)/Γ(r + 1) over the ranks of a tie: it telescopes.
        high = special.gammaln(below + ties + 1 + n) - special.gammaln(below + ties + 1)
        low = special.gammaln(below + n) - special.gammaln(below)
        tied = high + np.log(-np.expm1(low - high)) - np.log(ties + 1)
        alone = np.log(n) + special.gammaln(below + n) - special.gammaln(below + 1)
        top = special.gammaln(k + 2) - special.gammaln(k + 1 + n)
        return np.where(known, np.where(ties > 0, tied, alone) + top, np.nan)


def best_of_n_log_ratio(
    below: Float[np.ndarray, "K"], upto: Float[np.ndarray, "K"], n: float
) -> Float[np.ndarray, "K"]:
    """log (F^N − F₋^N)/(F − F₋): best-of-N over the reference, in terms of the reference's CDF.

    Args:
        below: F₋, probability of a lower reward.
        upto: F > 0, probability of a reward at most this; where equal to F₋ there is no atom.
        n: N > 0.

    Example:
        >>> ratio = np.exp(best_of_n_log_ratio(np.array([0.0, 0.5]), np.array([0.5, 1.0]), 2))
        >>> ratio.round(12).tolist()
        [0.5, 1.5]
    """
    below, upto = np.asarray(below, dtype=float), np.asarray(upto, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        atom = n * np.log(upto) + np.log(-np.expm1(n * np.log(below / upto)))
        atom = atom - np.log(upto - below)
        point = np.log(n) + (n - 1) * np.log(upto)
    return np.where(upto > below, atom, point)


def _quantiles(scored: Scored) -> np.ndarray:
    if scored.quantiles is None:
        raise ValueError(
            "a calibrated target met rewards without quantiles; give the calibration of the "
            "reference's rewards on these prompts."
        )
    return scored.quantiles


def _known(ranks: Ranks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks with 0 in place of those that are not known, and which are."""
    known = ranks.below >= 0
    return np.where(known, ranks.below, 0), np.where(known, ranks.ties, 0), known
