"""What the planner is measured against: a damped fixed point on a grid, and a convex solver."""

import dataclasses
import time
from typing import Any

import numpy as np

from infalign.quantile.procedures import RankProcedure

__all__ = ["DAMPINGS", "ConvexProblem", "FixedPoint", "graded_grid", "tuned"]

POINTS = 4001
DAMPINGS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
ROUNDS = 600


@dataclasses.dataclass(frozen=True)
class FixedPoint:
    """F ← (1 − ω)·F + ω·F_new on an equidistant grid, started at the reference.

    Where a KL is asked for, β is set in every round to what gives the new law that KL, which costs
    two or three exponentials more and makes the iteration far calmer than at a fixed β.
    """

    procedure: RankProcedure
    damping: float
    beta: float | None = None
    kl: float | None = None
    points: int = POINTS

    def walk(self, target: float | None, enough: float) -> tuple[float, int, float]:
        """(win rate, rounds, last change): until |W − target| ≤ enough, or F stands still."""
        u = np.linspace(0.0, 1.0, self.points)
        h, pull, cdf, rate, change = u[1], self.procedure.rank_density(u), u.copy(), 0.5, np.inf
        log_beta = np.log(0.2 if self.beta is None else self.beta)
        for step in range(1, ROUNDS + 1):
            lost = self.procedure.rank_cdf(cdf) * pull
            rate = float(1 - h * (lost.sum() - (lost[0] + lost[-1]) / 2))
            if target is not None and abs(rate - target) <= enough:
                return rate, step, change
            force = self.procedure.rank_density(cdf) * pull
            phi = np.append(0.0, np.cumsum(force[1:] + force[:-1]) * (h / 2))
            phi -= phi[-1]
            if self.kl is not None:
                log_beta = _beta_for(phi, self.kl, log_beta, h)
            if not np.isfinite(log_beta):
                break  # the grid holds no law of this KL
            f = np.exp(phi / np.exp(log_beta))
            new = np.append(0.0, np.cumsum(f[1:] + f[:-1]))
            new /= new[-1]
            change = float(np.abs(new - cdf).max())
            if target is None and change < 1e-11:
                return rate, step, change
            cdf += self.damping * (new - cdf)
        return rate, ROUNDS, np.inf if not np.isfinite(log_beta) else change


@np.errstate(over="ignore", invalid="ignore")
def _beta_for(phi: np.ndarray, kl: float, log_beta: float, h: float) -> float:
    """log β at which exp(Φ/β) has the KL asked for, by Newton's method from the last one."""
    for _ in range(30):
        tilt = phi / np.exp(log_beta)
        f = np.exp(tilt) * h
        f[0] /= 2
        f[-1] /= 2
        mass = f.sum()
        mean = f @ tilt / mass
        miss = mean - np.log(mass) - kl
        if abs(miss) < 1e-10:
            break
        slope = f @ (tilt - mean) ** 2 / mass  # −dKL/dlog β
        log_beta += float(np.clip(miss / max(slope, 1e-300), -1.0, 1.0))
    return log_beta


def tuned(
    procedure: RankProcedure, exact: float, beta: float | None = None, kl: float | None = None
) -> dict[str, Any] | None:
    """The damping that gets there first, and how far "there" is from the truth, or None.

    "There" is W within the grid's own error, |W − W_grid| ≤ |W_grid − W_exact|, W_grid being what
    the iteration converges to. It is told W_grid and stops the moment it is as good as it gets.
    """
    walks = {damping: FixedPoint(procedure, damping, beta, kl) for damping in DAMPINGS}
    ends = {damping: walk.walk(None, 0.0) for damping, walk in walks.items()}
    settled = {damping: rate for damping, (rate, _, change) in ends.items() if change < 1e-9}
    if not settled:
        return None
    limit = float(np.median(list(settled.values())))
    error = max(abs(limit - exact), 1e-12)
    rounds = {damping: walks[damping].walk(limit, error)[1] for damping in settled}
    damping = min(rounds, key=rounds.__getitem__)
    return {"damping": damping, "rounds": rounds[damping], "limit": limit, "error": error}


def graded_grid(cells: int, finest: float) -> np.ndarray:
    """Cell edges on [0,1]: half of them equal, half narrowing geometrically towards u = 1."""
    tail = np.geomspace(0.2, finest, cells // 2)
    return np.unique(np.concatenate([np.linspace(0.0, 0.8, cells - len(tail)), 1 - tail, [1.0]]))


class ConvexProblem:
    """Best-of-N by cvxpy: least Σ Δ(G)·F̄^N over cell masses, Σ p·log(p/width) ≤ KL.

    W is concave in F for best-of-N. The problem is built and compiled once, with the KL as a
    parameter; only solving is timed. (Worst-of-N is not convex: no convex solver applies.)
    """

    def __init__(self, procedure: RankProcedure, edges: np.ndarray, solver: str):
        import cvxpy as cp

        width, n = np.diff(edges), procedure.candidates
        self.solver, self.kl = solver, cp.Parameter(nonneg=True)
        mass = cp.Variable(len(width), nonneg=True)
        above = cp.cumsum(mass)
        middle = above - mass / 2
        weight = np.diff(procedure.rank_cdf(edges))
        # Simpson's rule on each cell, F being linear there: exact to fourth order.
        power = [cp.power(x, n) for x in (above, middle)]
        start = cp.hstack([np.zeros(1), power[0][:-1]])
        lost = weight @ (start + 4 * power[1] + power[0]) / 6
        limits = [cp.sum(mass) == 1, cp.sum(cp.rel_entr(mass, width)) <= self.kl]
        self.problem = cp.Problem(cp.Minimize(lost), limits)

    def solve(self, kl: float) -> tuple[float, float]:
        """(win rate, seconds)."""
        self.kl.value = kl
        start = time.process_time()
        self.problem.solve(solver=self.solver, warm_start=False)
        return 1 - float(self.problem.value), time.process_time() - start
