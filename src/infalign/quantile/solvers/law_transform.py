"""Transforms made from a solved law: Φ = β·log f, known through the law of its tilt."""

import numpy as np

from infalign.quantile.panels import Numbers, TiltedLaw
from infalign.quantile.solvers.stationary import StationaryLaw
from infalign.quantile.transforms import Transform, refuse_beta

__all__ = ["LawTransform"]


class LawTransform(Transform):
    """A transform whose tilt at its own β is a law that was solved for.

    Normalised to Φ(1) = 0. At its own β everything comes from the law, exactly.
    """

    law_at_beta: StationaryLaw
    """The solution it was made from."""

    @property
    def beta(self) -> float:
        """The KL coefficient it was made at."""
        return self.law_at_beta.beta

    @property
    def kl(self) -> float:
        """KL of its tilt at `beta`. Nats."""
        return self.law_at_beta.kl

    @property
    def win_rate(self) -> float:
        """What its law was made to maximise, at `beta`: for the optimal one the frontier W*(KL)."""
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

    def tilted_exponent(self, u: np.ndarray, x: np.ndarray, beta: float) -> np.ndarray:
        return self.law_at_beta.evaluate(u, x)[0] * (self.beta / beta)

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
                f"The {self.name} transform of KL {self.kl:.3g} was asked for at β = {beta:.4g}, "
                f"not its own {self.beta:.4g}; there its density reaches "
                f"1e{-law.log_mass / np.log(10):.0f} at u = 1, which floating point does not "
                "resolve. Solve anew for that β."
            )
        return law
