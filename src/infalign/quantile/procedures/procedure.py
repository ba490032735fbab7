"""The contract: a procedure turns a policy into the law of what it finally answers.

A procedure is defined once with two faces: what it does to samples (`select`, which candidate is
answered) and what it does to a law (`decoded_density`, `decoded_cdf`). The two faces tell the same
story, and :func:`infalign.quantile.procedures.check_procedure` holds anyone's procedure to it. Its
first variation says which transform is worth training on.
"""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from infalign.quantile.mesh import FINE, Mesh
from infalign.quantile.panels import Numbers

__all__ = ["Law", "Procedure", "Uniform", "refuse_candidates"]


class Law(Protocol):
    """A law on quantiles; an aligned policy is one."""

    def cdf(self, u: Numbers, /) -> np.ndarray:
        """F(u)."""
        ...

    def density(self, u: Numbers, /) -> np.ndarray:
        """f(u)."""
        ...


class Uniform:
    """The reference policy's own law: F(u) = u."""

    def cdf(self, u: Numbers) -> np.ndarray:
        """F(u)."""
        return np.array(u, dtype=float)

    def density(self, u: Numbers) -> np.ndarray:
        """f(u)."""
        return np.ones_like(np.asarray(u, dtype=float))


class Procedure(ABC):
    """Turns a policy into the law of what it finally answers.

    A member needs `name`, `candidates`, `select` and `decoded_density`; the rest follows. Members
    are frozen dataclasses: their fields are their identity.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""

    @property
    @abstractmethod
    def candidates(self) -> int:
        """N, the most responses that are sampled for one answer."""

    @abstractmethod
    def decoded_density(
        self, mesh: Mesh, density: Float[np.ndarray, "... X"]
    ) -> Float[np.ndarray, "... X"]:
        """t, the density of T(F), at the mesh's points, from f there. Leading axes are laws."""

    @abstractmethod
    def select(
        self, quantiles: Float[np.ndarray, "... N"], rng: np.random.Generator
    ) -> Int[np.ndarray, "..."]:
        """Index of the candidate that is answered, by the candidates' rewards or quantiles."""

    @property
    def is_sequential(self) -> bool:
        """Whether fewer than N candidates may settle the answer: then sample a few at a time."""
        return False

    def realised(self, rng: np.random.Generator) -> "Procedure":
        """This one, once those of its own dice are thrown that need no candidate.

        A random count becomes the count that came up, so that no more are sampled.
        """
        return self

    def select_early(
        self,
        quantiles: Float[np.ndarray, "k"],
        rng: np.random.Generator,
        *,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> int | None:
        """Index of the answer where the first k ≤ N candidates settle it, None where they do not.

        The answer's law is that of `select` among all N.

        Args:
            quantiles: rewards or quantiles of the candidates so far, of one answer.
            rng: as for `select`.
            bounds: the smallest and the largest number there can be; pass/fail rewards have them.
        """
        return None if len(quantiles) < self.candidates else int(self.select(quantiles, rng))

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which it treats responses on either side differently. Meshes end there."""
        return ()

    def first_variation(
        self,
        mesh: Mesh,
        density: Float[np.ndarray, "... X"],
        worth: Float[np.ndarray, "X"],
    ) -> Float[np.ndarray, "... X"]:
        """ψ with δ ∫ h dT(F) = ∫ ψ δf, up to a constant: the worth of a quantile before decoding.

        Here by central differences of `decoded_density`, one point at a time: right for any
        member, in its moments on each panel; from point to point to about three digits. Members
        know it in closed form, without which their optimum cannot be solved for.

        Args:
            mesh: where the law is known.
            density: f.
            worth: h, what an answer at each point is worth.
        """
        density = np.asarray(density, dtype=float)
        step = 1e-5 * np.maximum(density, 1e-3)
        bumps = step[..., None, :] * np.eye(len(mesh.u))
        high = self.decoded_density(mesh, density[..., None, :] + bumps)
        low = self.decoded_density(mesh, density[..., None, :] - bumps)
        slopes = mesh.integral((high - low) * worth) / (2 * step * mesh.weights)
        return mesh.smoothed(slopes)

    def decoded_cdf(self, law: Law, u: Numbers) -> np.ndarray:
        """T(F) at the quantiles u."""
        u, mesh = np.asarray(u, dtype=float), Mesh.of(FINE, self.breaks)
        density = law.density(mesh.u)
        decoded = self.decoded_density(mesh, density / mesh.integral(density))
        return np.clip(mesh.interpolated(mesh.below(decoded), u, 1 - u), 0.0, 1.0)

    def mean_candidates(self, law: Law) -> float:
        """Expected number of responses sampled for one answer by this policy."""
        return float(self.candidates)


def refuse_candidates(procedure: Procedure, quantiles: np.ndarray) -> np.ndarray:
    """The candidates as an array; ValueError unless the last axis holds those of one answer."""
    quantiles = np.asarray(quantiles)
    if quantiles.ndim < 1 or quantiles.shape[-1] != procedure.candidates:
        raise ValueError(
            f"{procedure.name} chooses among {procedure.candidates} candidates; an array of shape "
            f"{quantiles.shape} came. The last axis holds the candidates of one answer."
        )
    return quantiles
