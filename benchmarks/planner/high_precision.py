"""Claim: the solved win rates are right to 1e-9, by 34-digit arithmetic of another kind.

Best-of-N and worst-of-N on both sides. In x = 1 − u, with P = 1 − F and s = log f, optimality is

    P′ = e^s,   s′ = −(N²/β)·A^{N−1}·B^{N−1},   P(0) = 0,   s(0) = q,

A = 1 − P, B = 1 − x for best-of, A = P, B = x for worst-of. Taylor series of order 44 are summed in
mpmath step by step, the integrals KL = ∫ s e^s dx and 1 − W = ∫ G(F) g_ref dx beside them, and
Newton's method finds the (q, log β) that end in P(1) = 1 at the KL asked for. Nothing is stretched,
and W is integrated, not taken from a formula.

    python benchmarks/planner/high_precision.py           # recompute and compare with the file
    python benchmarks/planner/high_precision.py --write   # write high_precision.json
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mpmath as mp

FILE = Path(__file__).with_suffix(".json")
COMMAND = "python benchmarks/planner/high_precision.py --write"
NS = (2, 4, 16, 64, 128)
KLS = ("0.01", "0.5", "1", "4")
FAMILIES = ("best", "worst")
LEFT_OUT = {"best-of-128 at 4"}
"""f(1) = 8e14: a shot misses by 1 where (q, log β) are wrong by 1e-15, and takes minutes."""
DIGITS = 34
"""Of the arithmetic, at least; 20 are written."""


@dataclasses.dataclass(frozen=True)
class Question:
    """Which law: family, N and, as a decimal string, KL."""

    family: str
    n: int
    kl: str

    @property
    def key(self) -> str:
        return f"{self.family}-of-{self.n} at {self.kl}"


@dataclasses.dataclass(frozen=True)
class Shot:
    """Where one integration from x = 0 to 1 ends."""

    mass: mp.mpf
    """P(1), which should be 1."""
    kl: mp.mpf
    """∫ f log f."""
    loss: mp.mpf
    """1 − W."""
    steps: int
    """Taylor steps taken."""


class Series:
    """Taylor coefficients that become known one order at a time."""

    def __init__(self, *first: mp.mpf):
        self.c = list(first)

    def __getitem__(self, k: int) -> mp.mpf:
        return self.c[k] if k < len(self.c) else mp.mpf(0)


class Power(Series):
    """A^p by squaring: each product's coefficient k follows from its factors' up to k."""

    def __init__(self, base: Series, p: int):
        super().__init__()
        self.chain: list[tuple[Series, Series, Series]] = []
        self.top = self._power(base, p)

    def _power(self, base: Series, p: int) -> Series:
        if p == 1:
            return base
        half = self._power(base, p // 2)
        square = self._product(half, half)
        return self._product(square, base) if p % 2 else square

    def _product(self, a: Series, b: Series) -> Series:
        product = Series()
        self.chain.append((product, a, b))
        return product

    def extend(self, k: int) -> mp.mpf:
        """Make coefficient k known, and return it."""
        for product, a, b in self.chain:
            product.c.append(convolved(a, b, k))
        return self.top[k]


def convolved(a: Series, b: Series, k: int) -> mp.mpf:
    """Coefficient k of the product."""
    return mp.fdot(a.c[: k + 1], b.c[k::-1])


def series_at(
    best: bool, n: int, rate: mp.mpf, x: mp.mpf, start: list[mp.mpf], order: int
) -> list[list[mp.mpf]]:
    """Taylor coefficients at x of (P, s, ∫s·e^s, ∫G(F)·g_ref)."""
    p, s, kl, loss = (Series(value) for value in start)
    density = Series()
    a = Series(1 - p[0] if best else p[0])
    b = Series(1 - x if best else x, mp.mpf(-1 if best else 1))
    b.c += [mp.mpf(0)] * order
    # Best-of: G(F) = Aᴺ. Worst-of: G(F) = 1 − Aᴺ. Both: g(F) = N·A^{N−1}, g_ref = N·B^{N−1}.
    slope_a, slope_b, both = Power(a, n - 1), Power(b, n - 1), Series()
    force, whole = Series(), Series()
    for k in range(order):
        density.c.append(
            mp.exp(s[0])
            if k == 0
            else mp.fdot([j * s[j] for j in range(1, k + 1)], density.c[k - 1 :: -1]) / k
        )
        force.c.append(slope_a.extend(k))
        both.c.append(slope_b.extend(k))
        whole.c.append(convolved(force, a, k))
        lost = Series(*([whole[i] if best else (i == 0) - whole[i] for i in range(k + 1)]))
        p.c.append(density[k] / (k + 1))
        a.c.append(-p[k + 1] if best else p[k + 1])
        s.c.append(-rate * convolved(force, both, k) / (k + 1))
        kl.c.append(convolved(s, density, k) / (k + 1))
        loss.c.append(n * convolved(lost, both, k) / (k + 1))
    return [p.c, s.c, kl.c, loss.c]


def shot(question: Question, q: mp.mpf, log_beta: mp.mpf) -> Shot:
    """Integrate from x = 0 to 1, each step a fixed share of the series' radius of convergence."""
    n, order = question.n, int(1.3 * mp.mp.dps)
    rate, best = n**2 * mp.exp(-log_beta), question.family == "best"
    accuracy, steps = mp.mpf(10) ** (2 - mp.mp.dps), 0
    x, state = (mp.mpf(0), [mp.mpf(0), q, mp.mpf(0), mp.mpf(0)]) if best else lead(n, rate, q)
    while x < 1:
        series = series_at(best, n, rate, x, state, order)
        # Both last terms of all must be below the accuracy wanted, in units of 1. Worst-of: where
        # P is still proportional to x, (x + h)^(2N−1) is what the series has to follow.
        tails = [
            (accuracy / abs(c[k])) ** (mp.mpf(1) / order) for c in series for k in (-1, -2) if c[k]
        ]
        h = min([1 - x, *tails, *([] if best else [x])])
        state = [mp.polyval(c[::-1], h) for c in series]
        x, steps = (mp.mpf(1) if h == 1 - x else x + h), steps + 1
        # f has vanished (P and KL stay, 1 − W goes on, to nothing), or F is far below 0.
        if state[1] < -1000 or state[0] > 2:
            break
    return Shot(state[0], state[2], state[3], steps)


def lead(n: int, rate: mp.mpf, q: mp.mpf) -> tuple[mp.mpf, list[mp.mpf]]:
    """Worst-of begins at x > 0, up to where s = q and P = e^q·x hold to all digits."""
    small = mp.mpf(10) ** (-mp.mp.dps) * (2 * n - 1) / rate
    x = min((small * mp.exp(-(n - 1) * q)) ** (mp.mpf(1) / (2 * n - 1)), mp.exp(-q) / 2)
    p = mp.exp(q) * x
    return x, [p, q, q * p, x**n - (p * x) ** n / 2]


def solved(question: Question, start: tuple[float, float]) -> dict[str, mp.mpf]:
    """β, q and 1 − W to working precision, by Newton's method from a rough (q, log β)."""
    q, log_beta = map(mp.mpf, start)
    kl, tiny = mp.mpf(question.kl), mp.mpf(10) ** (-mp.mp.dps // 2)

    def misses(q: mp.mpf, log_beta: mp.mpf) -> mp.matrix:
        end = shot(question, q, log_beta)
        return mp.matrix([end.mass - 1, end.kl - kl])

    with mp.workdps(min(mp.mp.dps, DIGITS)):
        log_beta = tamed(lambda value: misses(q, value)[0], log_beta)
    here, size = misses(q, log_beta), mp.inf
    for _ in range(20):
        # Where f(1) is large everything turns on a scale of 1/f(1). Later derivatives hold still.
        if size * mp.exp(q) > mp.mpf("1e-6"):
            columns = [misses(q + tiny, log_beta) - here, misses(q, log_beta + tiny) - here]
            jacobian = mp.matrix([[columns[j][i] / tiny for j in (0, 1)] for i in (0, 1)])
        step = mp.lu_solve(jacobian, here)
        size = max(map(abs, step))
        if size < mp.mpf(10) ** (12 - mp.mp.dps):
            end = shot(question, q - step[0], log_beta - step[1])
            return {"beta": mp.exp(log_beta - step[1]), "log_f1": q - step[0], "loss": end.loss}
        there = misses(q - step[0], log_beta - step[1])
        while mp.norm(there) > mp.norm(here) and mp.norm(there) > mp.sqrt(tiny):
            step /= 2
            there = misses(q - step[0], log_beta - step[1])
        q, log_beta, here = q - step[0], log_beta - step[1], there
    raise ArithmeticError(f"{question.key}: Newton's method did not settle; last step {size}.")


def tamed(miss: Callable[[mp.mpf], mp.mpf], value: mp.mpf) -> mp.mpf:
    """Where an increasing function is small: bisection, for laws so thin that doubles miss them."""
    here, width = miss(value), mp.mpf("1e-15")
    if abs(here) < 0.01:
        return value
    other = value
    while miss(other) * here > 0:
        other, width = value - mp.sign(here) * width, 2 * width
    low, high = sorted((value, other))
    while abs(here) >= 0.01:
        value = (low + high) / 2
        here = miss(value)
        low, high = (low, value) if here > 0 else (value, high)
    return value


def rough(question: Question) -> tuple[float, float]:
    """(q, log β) from the planner: a place to begin. Far from a solution, shots explode."""
    from infalign import BestOfN, WorstOfN, optimal_transform

    family = BestOfN if question.family == "best" else WorstOfN
    law = optimal_transform(family(question.n), kl=float(question.kl))
    return law.top, math.log(law.beta)


def questions() -> list[Question]:
    """The spot grid."""
    grid = [Question(family, n, kl) for family in FAMILIES for n in NS for kl in KLS]
    return [question for question in grid if question.key not in LEFT_OUT]


def written(question: Question, digits: int) -> dict[str, str]:
    """The solution, 20 digits of each number; the digits that 1/f(1) costs are added."""
    start = rough(question)
    with mp.workdps(
        digits + (int(1.3 * start[0] / math.log(10)) if question.family == "best" else 0)
    ):
        return {name: mp.nstr(value, 20) for name, value in solved(question, start).items()}


def main() -> int:
    """Recompute all; write them, or compare with what is written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}, law by law")
    parser.add_argument("--resume", action="store_true", help="leave out what is written already")
    parser.add_argument("--digits", type=int, default=DIGITS, help="of the arithmetic, at least")
    arguments = parser.parse_args()
    known = json.loads(FILE.read_text(encoding="utf-8"))["laws"] if FILE.exists() else {}
    laws = dict(known) if arguments.resume else {}
    for question in sorted(questions(), key=lambda question: question.n * float(question.kl)):
        if question.key in laws:
            continue
        start = time.perf_counter()
        laws[question.key] = written(question, arguments.digits)
        seconds = time.perf_counter() - start
        print(f"{question.key}: {laws[question.key]} ({seconds:.0f} s)", flush=True)
        if arguments.write:
            head = {"command": COMMAND, "digits": arguments.digits, "mpmath": mp.__version__}
            FILE.write_text(json.dumps({**head, "laws": laws}, indent=1) + "\n", encoding="utf-8")
    unlike = [key for key in known if any(differ(laws[key][x], known[key][x]) for x in known[key])]
    print(f"{len(laws)} laws; other than they were in {FILE.name}: {unlike or 'none'}")
    return 1 if unlike else 0


def differ(a: str, b: str) -> bool:
    """Whether two numbers differ before their 18th figure."""
    return abs(mp.mpf(a) - mp.mpf(b)) > mp.mpf("1e-18") * abs(mp.mpf(b))


if __name__ == "__main__":
    sys.exit(main())
