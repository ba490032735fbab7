"""Ties: which quantiles share one reward, and what a transform becomes when they do.

A reward with atoms (pass/fail, grades, any finite set of values) gives a whole interval [a, b] of
quantiles the same reward: an atom of mass b − a. Nothing can tell the responses of a tie apart, so
whatever a procedure or a training reward says there counts by its mean over the interval.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.panels import Function, Numbers, graded_edges, panel_rule
from infalign.quantile.transforms import Transform

__all__ = ["NO_TIES", "Tied", "Ties"]


@final
@dataclasses.dataclass(frozen=True)
class Ties:
    """Disjoint increasing intervals of quantiles on which the reward is equal; none by default.

    Args:
        intervals: (a, b) with 0 ≤ a < b ≤ 1, in increasing order. They may touch, as the two of a
            pass/fail reward do, but not overlap.

    Raises:
        ValueError: naming the interval that is empty, leaves [0,1] or overlaps the one before.

    Example:
        >>> ties = Ties(((0.0, 0.25), (0.5, 1.0)))
        >>> ties.middle([0.1, 0.3, 0.6]).tolist()
        [0.125, 0.3, 0.75]
        >>> bool(ties), bool(Ties()), ties.breaks
        (True, False, (0.25, 0.5))
    """

    intervals: tuple[tuple[float, float], ...] = ()
    """(a, b), from the worst tie to the best."""

    def __post_init__(self) -> None:
        clean, end = [], 0.0
        for number, interval in enumerate(self.intervals):
            pair = tuple(map(float, interval))
            if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= 1:
                raise ValueError(
                    f"Tie {number} is {pair}; it must be an interval (a, b) of quantiles with "
                    "0 ≤ a < b ≤ 1. Leave out what has no mass."
                )
            if pair[0] < end:
                raise ValueError(
                    f"Tie {number}, {pair}, overlaps the one before, which ends at {end:g}; give "
                    "disjoint intervals from the worst to the best, and merge those that overlap."
                )
            clean.append(pair)
            end = pair[1]
        object.__setattr__(self, "intervals", tuple(clean))

    @classmethod
    def pass_fail(cls, p: float) -> "Ties":
        """A reward of two values: the reference passes with probability p.

        Raises:
            ValueError: if p is not strictly between 0 and 1.

        Example:
            >>> Ties.pass_fail(0.25).intervals
            ((0.0, 0.75), (0.75, 1.0))
        """
        if not 0 < p < 1:
            raise ValueError(
                f"The pass probability is {p}; it must lie strictly between 0 and 1, because where "
                "all responses pass or all fail there is nothing to choose."
            )
        return cls(((0.0, 1.0 - p), (1.0 - p, 1.0)))

    @classmethod
    def of_masses(cls, masses: Sequence[float] | Float[np.ndarray, "C"]) -> "Ties":
        """A discrete reward: the reference's mass on each of its values, from worst to best.

        Values without mass are left out.

        Raises:
            ValueError: if a mass is negative or they do not sum to 1.

        Example:
            >>> Ties.of_masses([0.5, 0.0, 0.25, 0.25]).intervals
            ((0.0, 0.5), (0.5, 0.75), (0.75, 1.0))
        """
        given = np.asarray(masses, dtype=float)
        if given.ndim != 1 or not (given >= 0).all() or not abs(given.sum() - 1) < 1e-9:
            raise ValueError(
                f"Masses of shape {given.shape} came that sum to {given.sum():.10g}; the masses of "
                "a discrete reward are ≥ 0 and sum to 1, one for each value from worst to best."
            )
        edges = np.cumsum(np.append(0.0, given[given > 0]))
        edges = [*(edges[:-1] / edges[-1]).tolist(), 1.0]
        return cls(tuple(itertools.pairwise(edges)))

    def __bool__(self) -> bool:
        return bool(self.intervals)

    @cached_property
    def starts(self) -> Float[np.ndarray, "T"]:
        """The a of each interval."""
        return np.array([a for a, _ in self.intervals], dtype=float)

    @cached_property
    def ends(self) -> Float[np.ndarray, "T"]:
        """The b of each interval."""
        return np.array([b for _, b in self.intervals], dtype=float)

    @cached_property
    def breaks(self) -> tuple[float, ...]:
        """All edges strictly inside (0,1), increasing: where what is tied jumps."""
        return tuple(sorted({x for pair in self.intervals for x in pair} - {0.0, 1.0}))

    @property
    def has_two_values(self) -> bool:
        """Whether they are pass and fail: two ties that fill [0,1].

        Example:
            >>> Ties.pass_fail(0.3).has_two_values, Ties(((0.0, 0.3),)).has_two_values
            (True, False)
        """
        if len(self.intervals) != 2:
            return False
        (start, inner), (touching, end) = self.intervals
        return (start, end) == (0, 1) and inner == touching

    @property
    def largest_kl(self) -> float:
        """−log of the mass of a tie at the top, which no transform passes; infinite without one."""
        if not self.intervals or self.ends[-1] < 1 or self.starts[-1] == 0:
            return math.inf
        return -math.log1p(-self.starts[-1])

    def refuse_kl(self, kl: float) -> None:
        """Raise ValueError on a KL that nothing trained on a reward with these ties can have."""
        if kl >= self.largest_kl:
            raise ValueError(
                f"A KL of {kl} nats was asked for; the best responses are tied and have "
                f"probability {1 - self.starts[-1]:.4g}, so less than {self.largest_kl:.6g} nats "
                "can be used. Ask for less."
            )

    def index(self, u: Numbers) -> Int[np.ndarray, "..."]:
        """Which tie a quantile is in, from 0; −1 outside. An edge belongs to the tie above it.

        Example:
            >>> Ties(((0.0, 0.25), (0.5, 1.0))).index([0.0, 0.25, 0.5, 1.0]).tolist()
            [0, -1, 1, 1]
        """
        u = np.asarray(u, dtype=float)
        if not self.intervals:
            return np.full(u.shape, -1)
        tie = np.searchsorted(self.starts, u, side="right") - 1
        end = self.ends[np.maximum(tie, 0)]
        return np.where((tie >= 0) & ((u < end) | (u == 1.0) & (end == 1.0)), tie, -1)

    def middle(self, u: Numbers) -> np.ndarray:
        """The mid-rank quantile: u, or the middle of its tie."""
        return self.replaced(u, np.asarray(u, dtype=float), (self.starts + self.ends) / 2)

    def replaced(
        self, u: Numbers, values: Numbers, on_ties: Float[np.ndarray, "T"]
    ) -> Float[np.ndarray, "..."]:
        """`values` of a function at u, or the tie's own value where u is tied."""
        values, tie = np.array(values, dtype=float), self.index(u)
        return np.where(tie >= 0, on_ties[tie], values) if self.intervals else values

    def averages(self, function: Function, breaks: Sequence[float] = ()) -> Float[np.ndarray, "T"]:
        """Mean of a function over each tie, by quadrature graded towards the ends of each piece.

        Args:
            function: vectorised, integrable; smooth but for its breaks and singular at most there
                and at the ends of a tie.
            breaks: quantiles at which it kinks or jumps.

        Example:
            >>> Ties(((0.0, 0.5), (0.5, 1.0))).averages(lambda u: 2 * u).round(12).tolist()
            [0.5, 1.5]
        """
        means = np.empty(len(self.intervals))
        for number, (a, b) in enumerate(self.intervals):
            cuts = [a, *sorted(x for x in set(breaks) if a < x < b), b]
            pieces = [lo + (hi - lo) * graded_edges() for lo, hi in itertools.pairwise(cuts)]
            nodes, weights = panel_rule(np.unique(np.concatenate(pieces)))
            means[number] = np.sum(weights * function(nodes)) / (b - a)
        return means

    def averages_of(self, integral: Function) -> Float[np.ndarray, "T"]:
        """Mean over each tie of a function whose running integral ∫₀ᵘ is known.

        Example:
            >>> Ties(((0.0, 0.5), (0.5, 1.0))).averages_of(lambda u: u**2).tolist()
            [0.5, 1.5]
        """
        return (integral(self.ends) - integral(self.starts)) / (self.ends - self.starts)

    def flattened(self, function: Function, breaks: Sequence[float] = ()) -> Function:
        """The function, but equal to its mean on each tie."""
        means = self.averages(function, breaks)
        return lambda u: self.replaced(u, function(np.asarray(u, dtype=float)), means)

    def refined(self, edges: Float[np.ndarray, "E"]) -> Float[np.ndarray, "R"]:
        """Panel edges with those of the ties among them, so that no panel has a jump inside."""
        return np.unique(np.concatenate([edges, np.array(self.breaks, dtype=float)]))


NO_TIES = Ties()
"""A continuous reward."""


@final
@dataclasses.dataclass(frozen=True)
class Tied(Transform):
    """A transform flattened to its mean on every tie: what training sees of it.

    Φ_tied(u) = (b − a)⁻¹ ∫ₐᵇ Φ on a tie [a, b], Φ(u) elsewhere. Right whenever the reward cannot
    tell the responses of a tie apart.

    Args:
        transform: Φ.
        ties: where the reward is equal.

    Example:
        >>> from infalign.quantile.transforms import Identity
        >>> tied = Tied(Identity(), Ties.pass_fail(0.25))
        >>> tied([0.1, 0.9]).tolist()
        [0.375, 0.875]
        >>> f = np.exp(tied([0.1, 0.9]) - tied.log_partition(1.0))
        >>> round(float(0.75 * f[0] + 0.25 * f[1]), 12)
        1.0
    """

    transform: Transform
    """Φ."""
    ties: Ties
    """Where it is flat."""

    @property
    def name(self) -> str:
        return f"{self.transform.name}, tied"

    def __call__(self, u: Numbers) -> np.ndarray:
        return self.ties.replaced(u, self.transform(u), self._means)

    @property
    def breaks(self) -> tuple[float, ...]:
        outside = self.ties.index(np.array(self.transform.breaks)) < 0
        untied = np.array(self.transform.breaks)[outside].tolist()
        return tuple(sorted({*untied, *self.ties.breaks}))

    @cached_property
    def _means(self) -> Float[np.ndarray, "T"]:
        return self.transform.interval_mean(self.ties.starts, self.ties.ends)
