"""The contract: quantile → training reward Φ(u), with its log-partition.

A transform is an increasing function on [0,1]. KL-regularised RL on the reward Φ(u) converges to
the density exp(Φ(u)/β)/Z over quantiles, so choosing Φ is choosing the aligned policy; Z is known
exactly, which spares offline training its baseline.

A member is about fifteen lines: Φ itself, and closed forms where they exist. Everything else
(the tilted law, the finite-K corrections) follows by quadrature from the base class.
"""

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import special

from infalign.quantile.panels import Numbers, RunningIntegral, TiltedLaw, graded_edges, panel_rule
from infalign.quantile.ranks import posterior_means

__all__ = ["Transform", "refuse_beta"]


def refuse_beta(beta: float) -> None:
    """Raise ValueError unless β is a positive finite number."""
    if not (beta > 0 and np.isfinite(beta)):
        raise ValueError(
            f"beta is {beta}; the KL coefficient must be positive and finite, because the aligned "
            "policy is proportional to exp(Φ/β). β → ∞ is the reference itself."
        )


class Transform(ABC):
    """An increasing function Φ on [0,1] and what follows from it.

    Subclasses are frozen dataclasses: their fields are their identity.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""

    @abstractmethod
    def __call__(self, u: Numbers) -> np.ndarray:
        """Φ(u), dimensionless, elementwise; u in [0,1]."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles at which Φ jumps; integrals are cut there."""
        return ()

    def log_partition(self, beta: float) -> float:
        """log Z(β) = log ∫₀¹ exp(Φ(u)/β) du. Nats."""
        return self.law(beta).log_mass

    def law(self, beta: float) -> TiltedLaw:
        """The density exp(Φ/β)/Z on adaptive panels: what every integral is taken with."""
        refuse_beta(beta)
        return _law(self, float(beta))

    def tilted_cdf(self, u: Numbers, beta: float) -> np.ndarray:
        """F(u) = ∫₀ᵘ exp(Φ/β)/Z."""
        return self.law(beta).cdf(np.asarray(u, dtype=float))

    def tilted_kl(self, beta: float) -> float:
        """∫ f log f of the tilted density. Nats."""
        return self.law(beta).kl

    def tilted_exponent(self, u: np.ndarray, x: np.ndarray, beta: float) -> np.ndarray:
        """Φ(u)/β up to a constant, at u = 1 − x: for members that know it better next to 1."""
        return self(u) / beta

    def known_beta(self, kl: float) -> float | None:
        """The β at which the tilt has this KL, where it is known without a search."""
        return None

    def interval_mean(self, a: Numbers, b: Numbers) -> np.ndarray:
        """Average of Φ over [a, b]: the training reward of an atom that occupies those quantiles.

        Where a reference policy has atoms (finitely many responses), a response owns an interval
        of quantiles, not a point. Where a = b this is Φ(a).
        """
        a, b = np.broadcast_arrays(np.asarray(a, dtype=float), np.asarray(b, dtype=float))
        if np.any(a > b):
            raise ValueError("An interval [a, b] with a > b came; give the lower quantile first.")
        integral, width = _running_integral(self), b - a
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.asarray((integral(b) - integral(a)) / width)
        # The difference of integrals loses digits on the thinnest atoms; their middle will do.
        thin = width < 1e-6
        mean[thin] = self((a[thin] + b[thin]) / 2)
        return mean

    def posterior_mean(self, below: Numbers, ties: Numbers, k: int) -> np.ndarray:
        """E[Φ(U)] of a response's true quantile U, given its rank among k reference rewards.

        A response with r of k reference rewards below it and none equal has U ~ Beta(r+1, k−r+1).
        Tied with some, it is equally likely at every rank r = below … below + ties.

        Args:
            below: reference rewards below, 0 … k.
            ties: reference rewards equal, 0 … k − below.
            k: reference rewards compared with (K − 1 for reference rollouts themselves).

        Example:
            >>> from infalign.quantile.transforms import Identity
            >>> Identity().posterior_mean([0, 1], [0, 1], k=2).tolist()
            [0.25, 0.625]
        """
        below, ties = np.asarray(below), np.asarray(ties)
        if np.any(below < 0) or np.any(ties < 0) or np.any(below + ties > k):
            raise ValueError(
                f"Ranks from {below.min()} to {(below + ties).max()} came with k = {k}; a rank "
                "counts reference rewards, 0 to k. For leave-one-out ranks k is K − 1."
            )
        return posterior_means(self.rank_means(k), below, ties)

    def rank_means(self, k: int) -> Float[np.ndarray, "R"]:
        """Φ̄_k(r) = E[Φ(Beta(r+1, k−r+1))] for every rank r = 0 … k."""
        return _rank_means(self, k)

    def finite_log_partition(self, beta: float, k: int) -> float:
        """log (k+1)⁻¹ Σ_r exp(Φ̄_k(r)/β): the exact log Z of what is trained on at finite k.

        A fresh reference response is equally likely at each of the k + 1 ranks.

        Example:
            >>> from infalign.quantile.transforms import Identity
            >>> z = np.exp(Identity().finite_log_partition(0.5, k=1))
            >>> round(float(z - (np.exp(2 / 3) + np.exp(4 / 3)) / 2), 12) + 0.0
            0.0
        """
        refuse_beta(beta)
        return float(special.logsumexp(self.rank_means(k) / beta) - np.log(k + 1))

    def _posterior_means(self, k: int) -> np.ndarray:
        """`rank_means` by quadrature; members with a closed form replace it."""
        nodes, weights = panel_rule(np.unique(np.append(graded_edges(inner=64), self.breaks)))
        nodes, weights = nodes.ravel(), weights.ravel()
        # Counted from Φ(1): next to it, rounding of a mean near 1 would hide what ranks differ by.
        top = float(self(np.ones(1))[0])
        phi, below, above = self(nodes) - top, np.log(nodes), np.log1p(-nodes)
        means = []
        for ranks in np.array_split(np.arange(k + 1), 1 + k // 512):  # bounded memory at any k
            rank = ranks[:, None]
            log_beta = special.betaln(rank + 1, k - rank + 1)
            means.append((np.exp(rank * below + (k - rank) * above - log_beta) * weights) @ phi)
        return top + np.concatenate(means)


@lru_cache(maxsize=256)
def _law(transform: Transform, beta: float) -> TiltedLaw:
    return TiltedLaw.of(lambda u: transform(u) / beta, transform.breaks)


@lru_cache(maxsize=256)
def _running_integral(transform: Transform) -> RunningIntegral:
    return RunningIntegral.of(transform, transform.breaks)


@lru_cache(maxsize=256)
def _rank_means(transform: Transform, k: int) -> np.ndarray:
    if k < 1:
        raise ValueError(f"k is {k}; a rank needs at least one reference reward to compare with.")
    means = transform._posterior_means(k)
    means.setflags(write=False)
    return means
