"""Optimal: which transform wins most for a procedure and β (or KL).

The best policy is the tilt by the first variation of the win rate after decoding, taken at that
policy itself: a fixed point. For a rank procedure Φ(u) = −∫_u¹ g(F(v))·g_ref(v) dv. Plain
fixed-point iteration diverges for small β or large N, so three solvers share the work:

- best-of-N and worst-of-N are one curve for every β (:mod:`infalign.quantile.solvers.similarity`);
- two other rank procedures: a search by shooting brackets all solutions of
  F″ = F′·g(F)·g_ref(u)/β, Newton's method polishes them (:mod:`.shooting`, :mod:`.collocation`);
- anything else, imperfect judges and ties among them: Newton's method on the first variation
  (:mod:`.variational`).

Whatever the solver, the solution is checked anew: Φ from F by quadrature, F from Φ. Of best-of-N
and worst-of-N one law of each curve is, before any is handed out; the tests check the others.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicHermiteSpline

from infalign.quantile.mesh import NO_TIES
from infalign.quantile.procedures import BestOfN, Procedure, RankProcedure, WorstOfN
from infalign.quantile.solvers.law_transform import LawTransform
from infalign.quantile.solvers.newton import MeshLaw
from infalign.quantile.solvers.objective import Objective
from infalign.quantile.solvers.power_law import PowerLaw
from infalign.quantile.solvers.shooting import stationary_laws
from infalign.quantile.solvers.similarity import PowerCurve, power_curve
from infalign.quantile.solvers.stationary import StationaryLaw, residual
from infalign.quantile.solvers.variational import self_residual, stationary_law
from infalign.quantile.ties import Ties
from infalign.quantile.transforms import refuse_beta

__all__ = ["Optimal", "frontier_of_limits", "optimal_transform"]

LEAST_AGREEMENT = 1e-4
"""ρ below which a judge is taken not to agree at all."""
KNOTS = 32
"""Laws that a long frontier is interpolated between."""
TOLERATED = 1e-9
"""Largest residual of a solution that is handed out."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Optimal(LawTransform):
    """The transform whose tilt at `beta` wins most after decoding. Made by `optimal_transform`.

    Normalised to Φ(1) = 0. It depends on β: tilted at another β it is a transform like any other,
    no longer the optimal one. It increases, but where a quantile procedure makes a worse response
    worth more: just below the threshold of rewind-and-repeat, which tries again, and in soft
    best-of-n, where middling candidates win little and crowd out the best.
    """

    procedure: Procedure
    """Decodes the aligned policy."""
    reference_procedure: Procedure
    """Decodes the reference."""
    law_at_beta: StationaryLaw = dataclasses.field(repr=False)
    """The solution it was made from."""
    agreement: float = 1.0
    """ρ of the selecting and the judging reward."""
    ties: Ties = NO_TIES
    """Of the selecting reward."""

    @property
    def name(self) -> str:
        return "optimal"

    @cached_property
    def residual(self) -> float:
        """sup |F − F_new| of the check, made anew: Φ from F by quadrature, then F from Φ."""
        if isinstance(self.law_at_beta, MeshLaw):
            objective = Objective.of(
                self.procedure, self.reference_procedure, self.agreement, self.ties
            )
            return self_residual(objective, self.law_at_beta)
        assert isinstance(self.procedure, RankProcedure)
        assert isinstance(self.reference_procedure, RankProcedure)
        return residual(self.law_at_beta, self.procedure, self.reference_procedure)

    @property
    def breaks(self) -> tuple[float, ...]:
        objective = Objective.of(
            self.procedure, self.reference_procedure, self.agreement, self.ties
        )
        return objective.breaks


def optimal_transform(
    procedure: Procedure,
    *,
    beta: float | None = None,
    kl: float | None = None,
    reference_procedure: Procedure | None = None,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> Optimal:
    """The transform that wins most after decoding, at a given β or a given KL.

    Args:
        procedure: decodes the aligned policy.
        beta: KL coefficient, > 0; or
        kl: KL from the reference in nats, > 0. Exactly one of the two.
        reference_procedure: decodes the reference; the same procedure where None.
        agreement: ρ in (0,1], rank correlation of the reward that selects (and is trained on) and
            the gold reward that judges; the win rate is the judge's.
        ties: where the selecting reward is equal.

    Returns:
        Φ with Φ(1) = 0, carrying `.beta`, `.kl`, `.win_rate` and `.residual`.

    Raises:
        ValueError: unless exactly one of β and KL is given and positive; if the KL is out of
            reach; if the judge does not agree at all.
        ArithmeticError: if no solution passes the independent check to 1e-9.

    Reference:
        InfAlign: Inference-aware language model alignment (arXiv:2412.19792), Theorem 1.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> optimal = optimal_transform(BestOfN(4), kl=1.0)
        >>> round(optimal.win_rate, 5), round(optimal.beta, 5), optimal.residual < 1e-8
        (0.94112, 0.08305, True)
    """
    if (beta is None) == (kl is None):
        raise ValueError(
            f"beta={beta} and kl={kl} came; exactly one of them says how far the aligned policy "
            "may go. KL is the one that is comparable across procedures."
        )
    if beta is not None:
        refuse_beta(beta)
    if kl is not None and not (kl > 0 and np.isfinite(kl)):
        raise ValueError(f"kl is {kl}; the KL from the reference must be positive, in nats.")
    if not agreement >= LEAST_AGREEMENT:
        raise ValueError(
            f"agreement is {agreement}; a reward that does not rank like the judge is not worth "
            "training on, and has no optimal transform. It must lie between "
            f"{LEAST_AGREEMENT:g} and 1."
        )
    if kl is not None:
        ties.refuse_kl(kl)
    reference = reference_procedure or procedure
    return _solved(procedure, reference, float(agreement), ties, beta, kl)


def frontier_of_limits(
    procedure: Procedure,
    kls: Sequence[float],
    reference_procedure: Procedure | None = None,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
) -> Float[np.ndarray, "F"]:
    """W* at each KL > 0: `optimal_transform(...).win_rate`, but each law starts from its neighbour.

    Only the farthest is checked, and searched for beside the neighbour; where that search finds a
    better law, all are searched. More than 32 are interpolated (cubic in √KL, the slopes known to
    be β), within about 1e-7.
    """
    reference = reference_procedure or procedure
    if not len(kls):
        return np.empty(0)
    last = optimal_transform(
        procedure, kl=max(kls), reference_procedure=reference, agreement=agreement, ties=ties
    )
    if isinstance(last.law_at_beta, PowerLaw):
        curve = last.law_at_beta.curve
        return curve.win_rates(curve.ends_for_kls(np.array(kls, dtype=float)))
    objective = Objective.of(procedure, reference, agreement, ties)
    knots = np.unique(kls)
    if len(knots) > KNOTS:
        knots = np.linspace(np.sqrt(knots[0]), np.sqrt(knots[-1]), KNOTS) ** 2
    laws: list[MeshLaw] = []
    for kl in knots:
        near = laws[-1] if laws else None
        laws.append(stationary_law(objective, kl=float(kl), near=near, search=False))
    if laws[-1].win_rate < last.win_rate - 1e-9:
        laws = [stationary_law(objective, kl=float(kl)) for kl in knots]
    rates = np.array([law.win_rate for law in laws])
    if len(laws) < KNOTS:
        return rates[np.searchsorted(knots, kls)]
    slopes = 2 * np.sqrt(knots) * np.array([law.beta for law in laws])
    return CubicHermiteSpline(np.sqrt(knots), rates, slopes)(np.sqrt(kls))


@lru_cache(maxsize=256)
def _solved(
    procedure: Procedure,
    reference: Procedure,
    agreement: float,
    ties: Ties,
    beta: float | None,
    kl: float | None,
) -> Optimal:
    laws: list[StationaryLaw] = []
    if agreement == 1 and not ties:
        power = _power_law(procedure, reference, beta, kl)
        if power is not None:
            return Optimal(procedure, reference, power)
        laws = _rank_laws(procedure, reference, beta, kl)

    def sound(laws: list[StationaryLaw]) -> list[Optimal]:
        made = [Optimal(procedure, reference, law, agreement, ties) for law in laws]
        tried.extend(made)
        return [o for o in made if o.residual <= TOLERATED and _is_asked_for(o, beta, kl)]

    tried: list[Optimal] = []
    found = sound(laws)
    if not found:
        objective = Objective.of(procedure, reference, agreement, ties)
        law = stationary_law(objective, kl=kl, beta=beta, search=not is_concave(procedure))
        found = sound([law])
    if not found:
        asked = f"β = {beta}" if kl is None else f"KL = {kl} nats"
        raise ArithmeticError(
            f"No optimal transform for {procedure.name} against {reference.name} at {asked} was "
            f"found to a residual of {TOLERATED:g} (residuals "
            f"{[float(f'{one.residual:.1e}') for one in tried]}). Ask for a smaller KL, or use "
            "exponential."
        )
    # At equal β the objective decides, at equal KL the win rate; both are this.
    return max(found, key=lambda one: one.win_rate - (beta or 0.0) * one.kl)


def is_concave(procedure: Procedure) -> bool:
    """Whether W is known to be concave in F, so that the stationary law is unique.

    So it is for a convex G: where better ranks are answered no less often than worse ones.
    """
    if not isinstance(procedure, RankProcedure):
        return False
    return bool((np.diff(procedure.rank_probabilities) >= -1e-15).all())


def _rank_laws(
    procedure: Procedure, reference: Procedure, beta: float | None, kl: float | None
) -> list[StationaryLaw]:
    """Of two rank procedures for which several may exist: all that a search sees."""
    if not (isinstance(procedure, RankProcedure) and isinstance(reference, RankProcedure)):
        return []
    if is_concave(procedure):
        return []
    return list(stationary_laws(procedure, reference, beta=beta, kl=kl))


def _is_asked_for(optimal: Optimal, beta: float | None, kl: float | None) -> bool:
    """Whether the law has the β or the KL it was to have, to a relative 1e-9."""
    got, asked = (optimal.beta, beta) if kl is None else (optimal.kl, kl)
    return abs(got - float(asked or 0.0)) <= 1e-9 * got


def _power_law(
    procedure: Procedure, reference: Procedure, beta: float | None, kl: float | None
) -> PowerLaw | None:
    """The unique law of best-of against best-of, or worst-of against worst-of; else None."""
    shared = _extremes(procedure) & _extremes(reference)
    if not shared:
        return None
    curve = _checked_curve(procedure.candidates, reference.candidates, max(shared))
    end = curve.end_for_beta(beta) if beta is not None else curve.end_for_kl(float(kl or 0.0))
    return PowerLaw(curve, end)


@lru_cache(maxsize=512)
def _checked_curve(n: int, m: int, sign: int) -> PowerCurve:
    """The curve, once a law of half a nat on it has passed the check."""
    curve, family = power_curve(n, m, sign), BestOfN if sign > 0 else WorstOfN
    found = residual(PowerLaw(curve, curve.end_for_kl(0.5)), family(n), family(m))
    if not found <= TOLERATED:
        raise ArithmeticError(
            f"The optimal laws of {family(n).name} against {family(m).name} have a residual of "
            f"{found:.1e}, above {TOLERATED:g}. Use exponential."
        )
    return curve


def _extremes(procedure: Procedure) -> set[int]:
    """{+1} for best-of, {−1} for worst-of, both for a single candidate, none for the rest."""
    if not isinstance(procedure, RankProcedure):
        return set()
    p = procedure.rank_probabilities
    return {sign for sign, certain in ((1, p[-1]), (-1, p[0])) if certain == 1}
