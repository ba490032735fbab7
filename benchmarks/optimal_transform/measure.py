"""Claim: the optimal transform is solved, to 1e-8 or better, for every N to 64 and KL to 3 nats.

Prints the reference table of `docs/theory.md` and, for best-of-N and worst-of-N, the residual of
the independent check on the whole grid: `python benchmarks/optimal_transform/measure.py`.
"""

import time

import numpy as np

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN, RankProcedure, WorstOfN, median_of
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Identity, Log
from infalign.quantile.win_rate import win_rate

KLS = (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
ROWS: list[tuple[RankProcedure, float]] = [
    (BestOfN(2), 0.5),
    (BestOfN(4), 0.5),
    (BestOfN(4), 1.0),
    (BestOfN(8), 1.0),
    (BestOfN(16), 2.0),
    (WorstOfN(2), 0.5),
    (WorstOfN(4), 0.5),
    (median_of(5), 0.5),
]


def print_table() -> None:
    """Win rate in % of each transform at equal KL."""
    print("| procedure | KL | identity | log | exp(10) | exp(−10) | optimal | β of optimal |")
    print("|---|---|---|---|---|---|---|---|")
    for procedure, kl in ROWS:
        best = optimal_transform(procedure, kl=kl)
        cells = []
        for transform in (Identity(), Log(), Exponential(10.0), Exponential(-10.0)):
            policy = TiltedPolicy(transform, beta_for_kl(transform, kl))
            cells.append(f"{100 * win_rate(policy, procedure):.4f}")
        cells += [f"{100 * best.win_rate:.4f}", f"{best.beta:.5f}"]
        print(f"| {procedure.name} | {kl} | " + " | ".join(cells) + " |")


def print_grid() -> None:
    """Largest residual over N = 1..64 at each KL, and the slowest solution."""
    for family in (BestOfN, WorstOfN):
        worst, slowest = dict.fromkeys(KLS, 0.0), 0.0
        start = time.perf_counter()
        for n in range(1, 65):
            for kl in KLS:
                before = time.perf_counter()
                worst[kl] = max(worst[kl], optimal_transform(family(n), kl=kl).residual)
                slowest = max(slowest, time.perf_counter() - before)
        seconds = time.perf_counter() - start
        print(f"\n{family.__name__}, N = 1..64: {64 * len(KLS)} laws in {seconds:.1f} s, ", end="")
        print(f"slowest {1000 * slowest:.0f} ms")
        print("  ".join(f"KL {kl}: {residual:.1e}" for kl, residual in worst.items()))


def print_slopes() -> None:
    """Largest relative error of the envelope theorem dW*/dKL = β over the grid."""
    errors = []
    for family in (BestOfN, WorstOfN):
        for n in (1, 2, 4, 8, 16, 32, 64):
            for kl in KLS:
                low, here, high = (
                    optimal_transform(family(n), kl=kl * f) for f in (0.999, 1, 1.001)
                )
                if 1 - high.win_rate > 1e-9:  # else the difference has no digits left
                    slope = (high.win_rate - low.win_rate) / (high.kl - low.kl)
                    errors.append(abs(slope / here.beta - 1))
    print(f"\ndW*/dKL = β on {len(errors)} laws: largest relative error {np.max(errors):.1e}")


if __name__ == "__main__":
    print_table()
    print_grid()
    print_slopes()
