"""Robust: the transform whose worst case over a set of procedures is best, solved as a minimax.

max_f min_j a_j(f) over policies f of a KL, with a_j = W_j − W_j* (criterion "loss": the largest
loss against each procedure's own limit is least) or a_j = W_j ("win_rate": the smallest win rate is
largest). Minimising over weights λ on the simplex

    D(λ) = max_f Σ_j λ_j·a_j(f),    ∂D/∂λ_j = a_j(f_λ),

bounds the worst case from above for every λ; D is convex, and its inner maximum is a stationary
law of a weighted sum of win rates. At the minimum the procedures that carry weight are equally bad
and the others are better. The certificate is the gap D(λ) − min_j a_j(f_λ) = Σ λ_j·a_j − min a_j:
no policy of this KL has a worst case that is better by more. Where a procedure favours low ranks
(worst-of-N) W_j is not concave; the inner maximum is then searched, and the gap says what is known.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from infalign.planner.judging import judged_by, refuse_agreement
from infalign.planner.mismatch import refuse_procedures
from infalign.quantile.mesh import NO_TIES
from infalign.quantile.opponent import Opponent
from infalign.quantile.optimal import is_concave, optimal_transform
from infalign.quantile.procedures import Procedure
from infalign.quantile.solvers.law_transform import LawTransform
from infalign.quantile.solvers.newton import MeshLaw
from infalign.quantile.solvers.objective import Objective, Term
from infalign.quantile.solvers.stationary import StationaryLaw
from infalign.quantile.solvers.variational import stationary_law

__all__ = ["CRITERIA", "Robust", "RobustTransform", "robust", "saddle_point"]

CRITERIA = ("loss", "win_rate")
"""What may be made best in the worst case."""
SUFFICIENT = 1e-7
"""A gap that ends the search: a hundred-thousandth of a point."""
ROUNDS = 60
"""Inner maximisations at most."""
IDLE = 1e-9
"""A weight below this is none."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class RobustTransform(LawTransform):
    """Φ = β·(log f − log f(1)) of the robust law: tilted at its own β it is that law."""

    law_at_beta: StationaryLaw = dataclasses.field(repr=False)
    """f; its `win_rate` is Σ λ_j·W_j."""
    kinks: tuple[float, ...] = ()
    """Quantiles at which it kinks or jumps."""
    label: str = "robust"
    """Name in tables."""

    @property
    def name(self) -> str:
        return self.label

    @property
    def breaks(self) -> tuple[float, ...]:
        return self.kinks


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Robust:
    """The best worst case, with its certificate."""

    transform: RobustTransform
    """Train on this with its `.beta`."""
    criterion: str
    """What is best in the worst case: "loss" or "win_rate"."""
    procedures: tuple[str, ...]
    """Their names."""
    win_rates: Float[np.ndarray, "J"]
    """W_j of the robust policy."""
    limits: Float[np.ndarray, "J"]
    """W_j*, the largest of each procedure at this KL."""
    weights: Float[np.ndarray, "J"]
    """λ: which procedures bind, and how much. Sum to 1."""
    gap: float
    """No policy of this KL has a worst case better by more than this."""
    is_concave: bool
    """Whether each W_j is known to be concave. Else the inner maxima come from a search, and the
    gap is as certain as that."""

    @property
    def losses(self) -> Float[np.ndarray, "J"]:
        """W_j* − W_j."""
        return self.limits - self.win_rates

    @property
    def worst(self) -> float:
        """The largest loss, or the smallest win rate."""
        is_loss = self.criterion == "loss"
        return float(self.losses.max() if is_loss else self.win_rates.min())


def robust(
    procedures: Sequence[Procedure],
    kl: float,
    *,
    criterion: str = "loss",
    agreement: float = 1.0,
) -> Robust:
    """The policy whose worst case over the procedures is best at a KL, both sides decoded alike.

    "loss" asks each procedure to stay near its own limit; by raw "win_rate" the hardest procedure
    decides alone, and the answer is often its own optimum.

    Args:
        procedures: at least two different ones.
        kl: KL from the reference, nats, > 0.
        criterion: "loss" or "win_rate".
        agreement: Spearman ρ between the selecting and the judging reward.

    Raises:
        ValueError: an unknown criterion, fewer than two procedures, a KL out of reach.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> found = robust([BestOfN(1), BestOfN(4)], kl=1.0)
        >>> found.losses.round(3).tolist(), found.gap < 1e-6
        ([0.017, 0.017], True)
    """
    procedures = refuse_procedures(procedures)
    refuse_criterion(criterion)
    refuse_agreement(agreement)
    bests = [optimal_transform(p, kl=kl, **judged_by(agreement)) for p in procedures]
    limits = np.array([best.win_rate for best in bests])
    base = limits if criterion == "loss" else np.zeros(len(procedures))
    inner = _Inner(procedures, kl, agreement, base)
    weights, worths, law = saddle_point(inner, len(procedures))
    gap = float(weights @ worths - worths.min())
    names = tuple(p.name for p in procedures)
    transform = RobustTransform(law, inner.breaks)
    return Robust(
        transform, criterion, names, worths + base, limits, weights, gap, inner.is_concave
    )


Evaluated = tuple[Float[np.ndarray, "J"], Any]
"""a_j(f_λ) and f_λ."""


def saddle_point(
    inner: Callable[[Float[np.ndarray, "J"]], Evaluated], count: int
) -> tuple[Float[np.ndarray, "J"], Float[np.ndarray, "J"], Any]:
    """Weights λ that minimise D, the worths there, and the law; whatever the inner solver is.

    Sequential quadratic programming on D and its exact gradient finds which weights are active;
    Newton's method (secants of Broyden's kind) then makes their worths equal.

    Args:
        inner: λ → (a_j(f_λ), f_λ).
        count: number of procedures.
    """
    best: list[tuple[float, np.ndarray, np.ndarray, Any]] = []

    def evaluated(weights: np.ndarray) -> np.ndarray:
        worths, law = inner(weights)
        gap = float(weights @ worths - worths.min())
        if not best or gap < best[0][0]:
            best[:] = [(gap, weights, worths, law)]
        if gap <= SUFFICIENT:
            raise _Found
        return worths

    try:
        _descended(evaluated, count)
        for _ in range(4):
            _equalised(evaluated, best[0][1], best[0][2])
    except _Found:
        pass
    _, weights, worths, law = best[0]
    return weights, worths, law


class _Found(Exception):
    """The gap is small enough."""


def _descended(evaluated: Callable[[np.ndarray], np.ndarray], count: int) -> None:
    def value(raw: np.ndarray) -> tuple[float, np.ndarray]:
        weights = _onto_simplex(raw)
        worths = evaluated(weights)
        return 100 * float(weights @ worths), 100 * worths

    minimize(
        value,
        np.full(count, 1 / count),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-9, "maxiter": ROUNDS},
    )


def _equalised(
    evaluated: Callable[[np.ndarray], np.ndarray], weights: np.ndarray, worths: np.ndarray
) -> None:
    """Newton's method on a_i = a_k for the active i, k, by finite differences along edges."""
    near = worths - worths.min() < 1e-3 * max(np.ptp(worths), 1e-3)
    active = np.flatnonzero((weights > IDLE) | near)
    if len(active) < 2:
        return
    first, rest = active[int(np.argmax(weights[active]))], []
    rest = [j for j in active if j != first]
    step, slopes = 1e-4, np.empty((len(rest), len(rest)))
    for column, j in enumerate(rest):
        bumped = weights.copy()
        bumped[j] += step
        bumped[first] -= step
        moved = evaluated(bumped)
        slopes[:, column] = ((moved - worths)[rest] - (moved - worths)[first]) / step
    for _ in range(6):
        wanted = -(worths[rest] - worths[first])
        change = np.linalg.lstsq(slopes, wanted, rcond=None)[0]
        raw = weights.copy()
        raw[rest] += change
        raw[first] -= change.sum()
        weights = _onto_simplex(raw)
        worths = evaluated(weights)


def _onto_simplex(raw: np.ndarray) -> np.ndarray:
    weights = np.clip(raw, 0.0, None)
    return weights / weights.sum()


@final
class _Inner:
    """λ → the law that maximises Σ λ_j W_j at the KL, each found from the last one's."""

    def __init__(
        self,
        procedures: Sequence[Procedure],
        kl: float,
        agreement: float,
        base: Float[np.ndarray, "J"],
    ) -> None:
        self._terms = [Term(p, Opponent(p, agreement, NO_TIES)) for p in procedures]
        self._kl, self._base, self._last = kl, base, None
        self.is_concave = all(map(is_concave, procedures))

    def __call__(self, weights: np.ndarray) -> Evaluated:
        self._last = stationary_law(
            self._objective(weights), kl=self._kl, near=self._last, search=not self.is_concave
        )
        return self._worths(self._last), self._last

    @property
    def breaks(self) -> tuple[float, ...]:
        return Objective(tuple(self._terms)).breaks

    def _objective(self, weights: np.ndarray) -> Objective:
        terms = zip(self._terms, weights, strict=True)
        return Objective(tuple(dataclasses.replace(t, weight=float(w)) for t, w in terms))

    def _worths(self, law: MeshLaw) -> np.ndarray:
        density = np.exp(law.log_density)
        singly = [self._objective(one) for one in np.eye(len(self._terms))]
        return np.array([float(o.win_rate(law.mesh, density)) for o in singly]) - self._base


def refuse_criterion(criterion: str) -> None:
    """Raise ValueError on another word than "loss" and "win_rate"."""
    if criterion not in CRITERIA:
        raise ValueError(f"criterion is {criterion!r}; it is one of {', '.join(CRITERIA)}.")
