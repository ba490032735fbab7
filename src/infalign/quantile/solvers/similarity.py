"""The optimal law for best-of-N and worst-of-N, exactly, from one curve for every β at once.

The optimum solves F″ = F′·g(F)·g_ref(u)/β with F(0) = 0, F(1) = 1. Measure from the end that the
procedure looks at, x = u and H = F for best-of, x = 1 − u and H = 1 − F for worst-of. Then
g(F)·g_ref(u) = n·m·H^{n−1}·x^{m−1} for aligned best-of-n against reference best-of-m, and

    H″ = σ·(n·m/β)·H′·H^{n−1}·x^{m−1},   H(0) = 0,   σ = +1 best-of, −1 worst-of.

Stretching H and x maps solutions to solutions. So *every* solution, for every β, is a piece of
one curve, stretched to end in (1, 1): there is nothing to shoot for, and (since the β of a piece
falls strictly with its length) **the stationary point is unique** for every β, also for worst-of-N,
where W is not concave. In stretch-invariant coordinates, with time ℓ = log Q and
Q = x^m·H^{n−1} = n·m/β,

    λ = log(x·H′/H):        dλ/dℓ  = (1 + σQ − e^λ)/D,   D = m + (n−1)·e^λ,   λ → 0 as ℓ → −∞
    log x, log H:           dlog x/dℓ = 1/D,   dlog H/dℓ = e^λ/D
    KL of the piece so far: dKL/dℓ = (1 − e^λ + e^λ·(λ − KL))/D,

and a piece ending at ℓ has density e^λ at its far end and 1 − W = σ·(β/n)·(λ − KL) for best-of (for
worst-of the same expression is W). All steep layers (best-of-64 at 3 nats: 4e-10 thin; worst-of-64:
β = 1e-82) are features of width one in ℓ, so a few dozen Chebyshev panels give fourteen digits in
milliseconds.
"""

import dataclasses
from functools import cached_property, lru_cache
from typing import final

import numpy as np
from jaxtyping import Float
from numpy.polynomial import chebyshev

from infalign.quantile.panels import entropy_excess

__all__ = ["PowerCurve", "power_curve"]

POINTS = 17
"""Chebyshev–Lobatto points per panel."""
START = -24.0
"""ℓ where the curve is left to its series, λ = σQ/(n+m) + O(Q²): Q² = 1e-21 there."""
VANISHED = -140.0
"""λ below which H is constant to double precision, and all follows in closed form."""


def _panel_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in [−1,1], values → integral from −1, values → Chebyshev coefficients."""
    points = -np.cos(np.pi * np.arange(POINTS) / (POINTS - 1))
    to_coefficients = np.linalg.inv(chebyshev.chebvander(points, POINTS - 1))
    integrals = np.stack([chebyshev.chebint(row, lbnd=-1) for row in np.eye(POINTS)])
    running = chebyshev.chebvander(points, POINTS) @ integrals.T @ to_coefficients
    return points, running, to_coefficients


_X, _RUNNING, _COEFFICIENTS = _panel_matrices()


@final
@dataclasses.dataclass(frozen=True, eq=False)
class PowerCurve:
    """The curve (λ, place, log H, KL)(ℓ) for one (n, m, σ), as Chebyshev panels in ℓ.

    `place` increases with x and keeps its relative precision near the curve's far end: it is log x,
    except where H blows up at a finite x* (best-of-n, n ≥ 2), where it is −log(log x* − log x).
    """

    n: int
    """Candidates of the aligned policy."""
    m: int
    """Candidates of the reference."""
    sign: int
    """+1 best-of, −1 worst-of."""
    edges: Float[np.ndarray, "E"] = dataclasses.field(repr=False)
    """Panel edges in ℓ."""
    coefficients: Float[np.ndarray, "C 4 M"] = dataclasses.field(repr=False)
    """Chebyshev coefficients of (λ, place, log H, KL) on each panel."""

    @property
    def blows_up(self) -> bool:
        """Whether H reaches infinity at a finite x."""
        return self.sign > 0 and self.n > 1

    @property
    def last(self) -> float:
        """Largest ℓ that can be evaluated."""
        return 600.0 if self.sign < 0 else float(self.edges[-1])

    def at(self, ell: np.ndarray) -> Float[np.ndarray, "4 ..."]:
        """λ, place, log H and KL at ℓ."""
        ell = np.asarray(ell, dtype=float)
        values = self._inside(np.clip(ell, self.edges[0], self.edges[-1]), 4)
        return self._before(self._after(values, ell), ell)

    def _inside(self, inside: np.ndarray, columns: int) -> np.ndarray:
        """The first few columns, on the panels."""
        panel = np.clip(np.searchsorted(self.edges, inside, "right") - 1, 0, len(self.edges) - 2)
        middle = (self.edges[panel] + self.edges[panel + 1]) / 2
        half = (self.edges[panel + 1] - self.edges[panel]) / 2
        coefficients = self.coefficients[:, :columns, panel]
        return chebyshev.chebval((inside - middle) / half, coefficients, tensor=False)

    def _before(self, values: np.ndarray, ell: np.ndarray) -> np.ndarray:
        """Replace what lies before the first panel by the series around ℓ = −∞."""
        early = ell < self.edges[0]
        if not early.any():
            return values
        order = self.n + self.m - 1
        log_x = ell / order
        q = np.exp(np.minimum(ell, self.edges[0]))
        place = log_x
        if self.blows_up:
            first = np.exp(-self.at(self.edges[:1])[1, 0])
            place = -np.log(np.maximum(first + (self.edges[0] - ell) / order, first))
        series = np.stack([self.sign * q / (order + 1), place, log_x, np.zeros_like(ell)])
        return np.where(early, series, values)

    def _after(self, values: np.ndarray, ell: np.ndarray) -> np.ndarray:
        """Continue past the last panel where H has become constant (worst-of)."""
        beyond = np.maximum(ell - self.edges[-1], 0.0)
        if self.sign > 0 or not beyond.any():
            return values
        grown = np.exp(self.edges[-1]) * np.expm1(np.minimum(beyond, 650.0))
        zero = np.zeros_like(beyond)
        return values + np.stack([beyond - grown, beyond, zero, beyond]) / self.m

    def end_for_beta(self, beta: float) -> float:
        """ℓ of the piece with the given β: log(n·m/β).

        Raises:
            ValueError: if the curve was not followed that far.
        """
        end = float(np.log(self.n) + np.log(self.m) - np.log(beta))
        if not end <= self.last:
            raise ValueError(
                f"beta is {beta}; the optimal transform of this procedure is known for β of at "
                f"least {self.n * self.m * np.exp(-self.last):.3g}, a KL of "
                f"{self.at(np.array([self.last]))[3, 0]:.4g} nats. Use a larger β."
            )
        return end

    def end_for_kl(self, kl: float) -> float:
        """ℓ of the piece with the given KL.

        Raises:
            ValueError: if the KL lies outside what the curve was followed to.
        """
        return float(self.ends_for_kls(np.array([kl]))[0])

    def ends_for_kls(self, kls: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
        """ℓ of the pieces with the given KLs: panel by table, then Newton on log KL inside it."""
        low, high = self._reach
        if out := [kl for kl in kls.tolist() if not low <= kl <= high]:
            raise ValueError(
                f"A KL of {out[0]} nats was asked for; the optimal transform of this procedure is "
                f"known here for KL from {low:.2g} to {high:.4g} nats. Ask within that."
            )
        table, slopes, at_edges = self._kl_tables
        panel = np.clip(np.searchsorted(at_edges, kls, "right") - 1, 0, len(self.edges) - 2)
        half = (self.edges[panel + 1] - self.edges[panel]) / 2
        ends = np.log(np.stack([at_edges[panel], at_edges[panel + 1]]))
        x = np.clip(2 * (np.log(kls) - ends[0]) / (ends[1] - ends[0]) - 1, -1, 1)
        for _ in range(12):
            now = chebyshev.chebval(x, table[:, panel], tensor=False)
            slope = chebyshev.chebval(x, slopes[:, panel], tensor=False)
            step = np.log(np.maximum(now, 1e-300) / kls) * now / slope
            x = np.clip(x - step, -1, 1)
            if np.abs(step).max(initial=0.0) < 1e-9:
                break  # quadratic convergence: the next step would be below 1e-16
        ell = self.edges[panel] + half * (x + 1)
        beyond = self.edges[-1] + (kls - at_edges[-1]) * self.m
        return np.where(kls > at_edges[-1], beyond, ell)

    @cached_property
    def _reach(self) -> tuple[float, float]:
        """Smallest and largest KL that can be asked for."""
        low, high = self.at(np.array([self.edges[0] + 6.0, self.last]))[3].tolist()
        return low, high

    @cached_property
    def _kl_tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients of KL and of its slope on each panel, and KL at the edges."""
        table = self.coefficients[:, 3]
        ends = np.append(np.array([1e-300]), table.sum(axis=0))
        return table, chebyshev.chebder(table), ends

    def win_rates(self, ends: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
        """Win rates after decoding of the pieces that end there."""
        lam, _, _, kl = self.at(ends)
        share = self.m * np.exp(-ends) * (kl - lam)
        return np.minimum(1 + share if self.sign > 0 else share, 1.0)

    def ell_at_place(self, place: np.ndarray) -> np.ndarray:
        """ℓ where the curve passes `place`: panel by table, then Newton kept inside it."""
        edge_places = self.at(self.edges)[1]
        panel = np.clip(np.searchsorted(edge_places, place, "right") - 1, 0, len(self.edges) - 2)
        low, high = self.edges[panel], self.edges[panel + 1]
        share = (place - edge_places[panel]) / (edge_places[panel + 1] - edge_places[panel])
        ell = low + np.clip(share, 0, 1) * (high - low)
        for _ in range(8):
            lam, now = self._inside(ell, 2)
            slope = 1 / (self.m + (self.n - 1) * np.exp(lam))
            slope = slope * np.exp(now) if self.blows_up else slope
            step = (now - place) / slope
            ell = np.clip(ell - step, low, high)
            if np.all(np.abs(np.where((ell > low) & (ell < high), step, 0.0)) < 1e-9):
                break  # quadratic convergence: the next step would be below 1e-16
        order = self.n + self.m - 1
        if self.blows_up:
            with np.errstate(over="ignore"):
                early = self.edges[0] - order * (np.exp(-place) - np.exp(-edge_places[0]))
        else:
            early = order * place
        ell = np.where(place < edge_places[0], early, ell)
        beyond = self.edges[-1] + (place - edge_places[-1]) * self.m
        return np.where((place > edge_places[-1]) & (self.sign < 0), beyond, ell)


def _followed_lambda(
    ell: np.ndarray, half: float, start: float, n: int, m: int, sign: int
) -> np.ndarray | None:
    """λ at the panel's points by Newton on the collocation equations; None where unresolved."""
    q, lam = sign * np.exp(ell), np.full(POINTS, start)
    for _ in range(30):
        w = np.exp(lam)
        d = m + (n - 1) * w
        rate = (1 + q - w) / d
        slope = (-w - rate * (n - 1) * w) / d
        residual = lam - start - half * (_RUNNING @ rate)
        step = np.linalg.solve(np.eye(POINTS) - half * _RUNNING * slope, residual)
        lam = lam - step
        if not np.all(np.isfinite(lam)) or np.abs(lam).max() > 1e4:
            return None
        if np.abs(step).max() < 1e-13 * max(1.0, np.abs(lam).max()):
            tail = np.abs(_COEFFICIENTS[-2:] @ lam).max()
            return lam if tail < 3e-15 * max(1.0, np.abs(lam).max()) else None
    return None


@lru_cache(maxsize=512)
def power_curve(n: int, m: int, sign: int) -> PowerCurve:
    """Follow the curve, panel by panel, as far as double precision carries it.

    Args:
        n: candidates of the aligned policy, ≥ 1.
        m: candidates of the reference, ≥ 1.
        sign: +1 for best-of on both sides, −1 for worst-of on both sides.
    """
    last = 300.0 if n > 1 else np.log(1e5 * m)
    ell, lam, kl, width = START, sign * np.exp(START) / (n + m), 0.0, 2.0
    log_x = log_h = START / (n + m - 1)
    edges, values, rates = [ell], [], []
    while ell < last and lam > VANISHED:
        half = min(width, last - ell) / 2
        followed = _followed_lambda(ell + half * (1 + _X), half, lam, n, m, sign)
        if followed is None:
            width = half
            if width < 1e-6:
                raise ArithmeticError(f"The curve of n={n}, m={m}, σ={sign} was lost at ℓ={ell}.")
            continue
        w = np.exp(followed)
        d = m + (n - 1) * w
        place, height = log_x + half * (_RUNNING @ (1 / d)), log_h + half * (_RUNNING @ (w / d))
        known = kl + half * (_RUNNING @ (entropy_excess(followed) / d))
        divergence = np.linalg.solve(np.eye(POINTS) + half * _RUNNING * (w / d), known)
        values.append(np.stack([followed, place, height, divergence], axis=1))
        rates.append(half / d)
        lam, log_x, log_h, kl = (float(column[-1]) for column in values[-1].T)
        ell += 2 * half
        edges.append(ell)
        width = min(3.0 * width, 3.0)
    stacked = np.stack(values, axis=2)
    if sign > 0 and n > 1:
        tail = float(1 / (m + (n - 1) * np.exp(lam)))
        stacked[:, 1] = _remaining_places(np.stack(rates, axis=1), tail)
    coefficients = np.einsum("cp,pvm->cvm", _COEFFICIENTS, stacked)
    return PowerCurve(n, m, sign, np.array(edges), coefficients)


def _remaining_places(rates: np.ndarray, tail: float) -> np.ndarray:
    """−log(log x* − log x), summed from the far end so that small distances keep their digits.

    Args:
        rates: (half width)/D at the points of each panel.
        tail: 1/D at the last point; past it 1/D falls like e^{−ℓ}, so that is also its integral.
    """
    to_panel_end = (_RUNNING[-1] - _RUNNING) @ rates
    panels = to_panel_end[0]
    return -np.log(to_panel_end + np.append(np.cumsum(panels[:0:-1])[::-1], 0.0) + tail)
