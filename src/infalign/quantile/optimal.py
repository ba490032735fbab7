"""Optimal: which transform wins most for a procedure and β (or KL).

The first variation of the win rate after decoding says that the best policy is the tilt by
Φ(u) = −∫_u¹ g(F(v))·g_ref(v) dv, F being that policy's own CDF: a fixed point. Plain
fixed-point iteration diverges for small β or large N, so it is solved as the boundary-value problem
F″ = F′·g(F)·g_ref(u)/β, F(0) = 0, F(1) = 1. Best-of-N and worst-of-N have a one-curve solution
(:mod:`infalign.quantile.similarity`). For all others a search by shooting brackets the solutions,
Newton's method polishes them (:mod:`.shooting`, :mod:`.collocation`), and the best one is kept.

Whatever the solver, the solution is checked independently: Φ from F by quadrature, F from Φ.
"""

import dataclasses
from functools import lru_cache
from typing import final

import numpy as np

from infalign.quantile.panels import Numbers, TiltedLaw
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.shooting import stationary_laws
from infalign.quantile.similarity import PowerLaw, power_curve
from infalign.quantile.stationary import StationaryLaw, residual
from infalign.quantile.transforms import Transform, refuse_beta

__all__ = ["Optimal", "optimal_transform"]

TOLERATED = 1e-8
"""Largest residual of a solution that is handed out."""


@final
@dataclasses.dataclass(frozen=True, eq=False)
class Optimal(Transform):
    """The transform whose tilt at `beta` wins most after decoding. Made by `optimal_transform`.

    Normalised to Φ(1) = 0. It depends on β: tilted at another β it is a transform like any other,
    no longer the optimal one.
    """

    procedure: RankProcedure
    """Decodes the aligned policy."""
    reference_procedure: RankProcedure
    """Decodes the reference."""
    law_at_beta: StationaryLaw = dataclasses.field(repr=False)
    """The solution it was made from."""
    residual: float
    """sup |F − F_new| of the independent check. ≤ 1e-8."""

    @property
    def name(self) -> str:
        return "optimal"

    @property
    def beta(self) -> float:
        """The KL coefficient it is optimal at."""
        return self.law_at_beta.beta

    @property
    def kl(self) -> float:
        """KL of its tilt at `beta`. Nats."""
        return self.law_at_beta.kl

    @property
    def win_rate(self) -> float:
        """Win rate after decoding of its tilt at `beta`: the frontier W*(KL)."""
        return self.law_at_beta.win_rate

    @property
    def top(self) -> float:
        """log f(1) = −log Z(β), since Φ(1) = 0. Nats."""
        return float(self.law_at_beta.evaluate(np.ones(1), np.zeros(1))[0][0])

    def __call__(self, u: Numbers) -> np.ndarray:
        return np.asarray(self.beta * np.minimum(self._evaluate(u)[0] - self.top, 0.0))

    def log_partition(self, beta: float) -> float:
        return -self.top if beta == self.beta else self._elsewhere(beta).log_mass

    def tilted_cdf(self, u: Numbers, beta: float) -> np.ndarray:
        if beta == self.beta:
            return self._evaluate(u)[1]
        return self._elsewhere(beta).cdf(np.asarray(u, dtype=float))

    def tilted_kl(self, beta: float) -> float:
        return self.kl if beta == self.beta else self._elsewhere(beta).kl

    def known_beta(self, kl: float) -> float | None:
        return self.beta if abs(kl - self.kl) <= 1e-12 * self.kl else None

    def _evaluate(self, u: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """log f and F at its own β, for any shape of u."""
        u = np.asarray(u, dtype=float)
        log_f, cdf = self.law_at_beta.evaluate(u.ravel(), 1 - u.ravel())
        return log_f.reshape(u.shape), cdf.reshape(u.shape)

    def _elsewhere(self, beta: float) -> TiltedLaw:
        """The law at another β, refused where u has no digits left to integrate over.

        Since Φ ≤ 0, the mass between the last floating-point number and 1 is at most 1e-16/Z.
        """
        refuse_beta(beta)
        law = self.law(beta)
        if law.log_mass < -16:
            raise ValueError(
                f"The optimal transform for {self.procedure.name} at KL {self.kl:.3g} was asked "
                f"for at β = {beta:.4g}, not its own {self.beta:.4g}; there its density reaches "
                f"1e{-law.log_mass / np.log(10):.0f} at u = 1, which floating point does not "
                "resolve. Solve anew for that β."
            )
        return law


def optimal_transform(
    procedure: RankProcedure,
    *,
    beta: float | None = None,
    kl: float | None = None,
    reference_procedure: RankProcedure | None = None,
) -> Optimal:
    """The transform that wins most after decoding, at a given β or a given KL.

    Args:
        procedure: decodes the aligned policy.
        beta: KL coefficient, > 0; or
        kl: KL from the reference in nats, > 0. Exactly one of the two.
        reference_procedure: decodes the reference; the same procedure where None.

    Returns:
        Φ with Φ(1) = 0, carrying `.beta`, `.kl`, `.win_rate` and `.residual`.

    Raises:
        ValueError: unless exactly one of β and KL is given and positive; if the KL is out of reach.
        ArithmeticError: if no solution passes the independent check to 1e-8.

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
    return _solved(procedure, reference_procedure or procedure, beta, kl)


@lru_cache(maxsize=256)
def _solved(
    procedure: RankProcedure, reference: RankProcedure, beta: float | None, kl: float | None
) -> Optimal:
    laws = _power_laws(procedure, reference, beta, kl)
    if laws is None:
        laws = stationary_laws(procedure, reference, beta=beta, kl=kl)
    checked = [(law, residual(law, procedure, reference)) for law in laws]
    sound = [(law, r) for law, r in checked if r <= TOLERATED and _is_asked_for(law, beta, kl)]
    if not sound:
        asked = f"β = {beta}" if kl is None else f"KL = {kl} nats"
        raise ArithmeticError(
            f"No optimal transform for {procedure.name} against {reference.name} at {asked} was "
            f"found to a residual of {TOLERATED:g} ({len(checked)} candidates, residuals "
            f"{[float(f'{r:.1e}') for _, r in checked]}). Ask for a smaller KL, or use exponential."
        )
    # At equal β the objective decides, at equal KL the win rate; both are this.
    law, r = max(sound, key=lambda pair: pair[0].win_rate - (beta or 0.0) * pair[0].kl)
    return Optimal(procedure, reference, law, r)


def _is_asked_for(law: StationaryLaw, beta: float | None, kl: float | None) -> bool:
    """Whether the law has the β or the KL it was to have, to a relative 1e-9."""
    got, asked = (law.beta, beta) if kl is None else (law.kl, kl)
    return abs(got - float(asked or 0.0)) <= 1e-9 * got


def _power_laws(
    procedure: RankProcedure, reference: RankProcedure, beta: float | None, kl: float | None
) -> list[PowerLaw] | None:
    """The unique law of best-of against best-of, or worst-of against worst-of; else None."""
    shared = _extremes(procedure) & _extremes(reference)
    if not shared:
        return None
    n, m = procedure.candidates, reference.candidates
    curve = power_curve(n, m, max(shared))
    end = curve.end_for_beta(beta) if beta is not None else curve.end_for_kl(float(kl or 0.0))
    return [PowerLaw(curve, end)]


def _extremes(procedure: RankProcedure) -> set[int]:
    """{+1} for best-of, {−1} for worst-of, both for a single candidate, none for the rest."""
    p = procedure.rank_probabilities
    return {sign for sign, certain in ((1, p[-1]), (-1, p[0])) if certain == 1}
