"""The tables of docs/choosing.md, computed.

`python docs/choosing.py --write` puts them between their markers; without `--write` it says whether
they are current (exit code 1 where not).
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from infalign import (
    BestOfN,
    Exponential,
    Procedure,
    TiltedPolicy,
    WorstOfN,
    beta_for_kl,
    optimal_transform,
    plan,
    win_rate,
)
from infalign.planner.mismatch import mismatch
from infalign.planner.power import power
from infalign.planner.robust import robust
from infalign.planner.target import cheapest
from infalign.quantile import transforms
from infalign.quantile.finite import rollouts_enough

PAGE = Path(__file__).with_name("choosing.md")
BUDGETS = PAGE.parents[1] / "benchmarks" / "decoding" / "budgets.json"
"""What procedures won on text, as measured."""
SPENT = (1.5, 6.0, 24.0, 96.0)
"""Bounds between columns, in answers' worth of tokens."""
KL = 1.0
"""Of the tables that hold it fixed. Nats."""
KLS = (0.25, KL)
"""Of the tables that show two."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def steepness(procedure: Procedure) -> float:
    """t of exp(t) that has the shape of the optimum of small KLs, u^(2N−1): 2N − 1, signed."""
    t = 2 * procedure.candidates - 1.0
    return -t if isinstance(procedure, WorstOfN) else t


def at(transform: transforms.Transform, procedure: Procedure, kl: float) -> float:
    """Win rate after decoding, both sides alike."""
    return win_rate(TiltedPolicy(transform, beta_for_kl(transform, kl)), procedure)


def transform_table() -> str:
    """Which transform: what each wins at one nat, and the β of the optimum there and around."""
    rows = []
    for procedure in (*map(BestOfN, (1, 2, 4, 16, 64)), WorstOfN(4)):
        best, t = optimal_transform(procedure, kl=KL), steepness(procedure)
        rates = [at(x, procedure, KL) for x in (transforms.Identity(), Exponential(t), best)]
        betas = [optimal_transform(procedure, kl=kl).beta for kl in (0.25, KL, 2.0)]
        cells = [f"{rate:.3f}" for rate in rates]
        cells[1] += f" (t = {t:g})"
        rows.append([procedure.name, *cells, " / ".join(f"{beta:.2g}" for beta in betas)])
    head = ["decoded by", "identity", "exp(t), t = ±(2N−1)", "optimal"]
    return table([*head, "β of optimal at KL 0.25 / 1 / 2"], rows)


def reach_table() -> str:
    """Which N: the least KL to beat one answer of the reference nine times in ten."""
    targets, ns = (0.8, 0.9, 0.95), (1, 2, 4, 8, 16, 32)
    ways = {target: cheapest(target, ns) for target in targets}
    head = ["win rate wanted", *(f"N = {n}" for n in ns)]
    rows = [
        [f"{target:g}", *(f"{way.kl:.3f}" if way.kl else "0" for way in ways[target])]
        for target in targets
    ]
    return table(head, rows)


def mismatch_table() -> str:
    """What a wrong N costs, and the transform that costs least at worst."""
    found = mismatch([BestOfN(n) for n in (1, 4, 16)], KL)
    rows = [
        [name, *(f"{rate:.3f}" for rate in rates), f"{100 * loss:.1f}"]
        for name, rates, loss in zip(found.rows, found.win_rates, found.worst_losses, strict=True)
    ]
    for ns in ((1, 4), (4, 16)):
        safe = robust([BestOfN(n) for n in ns], KL).transform
        rates = [at(safe, BestOfN(n), KL) for n in (1, 4, 16)]
        lost = 100 * max(found.limits - rates)
        cells = [*(f"{rate:.3f}" for rate in rates), f"{lost:.1f}"]
        rows.append([f"robust over N = {ns[0]} and {ns[1]}", *cells])
    head = ["trained for", *(f"decoded {name}" for name in found.columns)]
    return table([*head, "most points lost"], rows)


def rollouts_table() -> str:
    """How many calibration rollouts lose less than so much."""
    rows = []
    for n in (1, 4, 16):
        counts = [
            str(rollouts_enough("optimal", BestOfN(n), kl, loss))
            for kl in KLS
            for loss in (0.02, 0.01, 0.005)
        ]
        rows.append([BestOfN(n).name, *counts])
    head = [f"KL {kl:g}, {points} points" for kl in KLS for points in ("2", "1", "½")]
    return table(["decoded by", *head], rows)


def power_table() -> str:
    """How many prompts show a difference."""
    rows = []
    for n in (1, 4, 16):
        for samples in (n, 4 * n):
            cells = []
            for difference in (0.05, 0.02):
                (row,) = power(BestOfN(n), difference, [samples], kl=KL)
                cells += [str(row.prompts_against_reference), str(row.prompts_paired)]
            rows.append([BestOfN(n).name, str(samples), *cells])
    head = ["decoded by", "samples per prompt and side", "5 points, against the reference"]
    head += ["5 points, two policies", "2 points, against the reference", "2 points, two policies"]
    return table(head, rows)


def judge_table() -> str:
    """What the judge says when another reward selects and trains; and when it is solved for."""
    rows = [
        [f"{rho:g}", *(" → ".join(judged(BestOfN(n), kl, rho)) for n in (1, 4, 16) for kl in KLS)]
        for rho in (0.8, 0.6, 0.4)
    ]
    return table(["ρ", *(f"N = {n}, KL {kl:g}" for n in (1, 4, 16) for kl in KLS)], rows)


def judged(procedure: Procedure, kl: float, rho: float) -> list[str]:
    """Win rate by the judge of the optimum for the selecting reward, and of that for the judge."""
    rows = plan(procedure, kl, transforms=(), agreement=rho)
    return [f"{row.gold_win_rate:.3f}" for row in rows]


def decoded_table(task: str, measured: Callable[[dict], str]) -> str:
    """A row for each family of procedures, a column for each size of budget."""
    ways = json.loads(BUDGETS.read_text(encoding="utf-8"))[task]["ways"]
    alone = next(iter(ways.values()))["budget"]["tokens"]
    families: dict[str, list[list[str]]] = {}
    for label, way in ways.items():
        family, _, name = label.partition(" | ")
        cells = families.setdefault(family, [[] for _ in range(len(SPENT) + 1)])
        tokens = way["budget"]["tokens"]
        place = sum(tokens > bound * alone for bound in SPENT)
        cells[place].append(f"{measured(way)} ({size_of(name)}, {tokens:.0f})")
    bounds = [f"{bound * alone:.0f}" for bound in SPENT]
    head = [f"≤ {bounds[0]} tokens", *(f"≤ {bound}" for bound in bounds[1:]), f"> {bounds[-1]}"]
    rows = [[family, *("<br>".join(cell) for cell in cells)] for family, cells in families.items()]
    used = [0, *(i for i in range(1, len(head) + 1) if any(row[i] for row in rows))]
    return table([["procedure", *head][i] for i in used], [[row[i] for i in used] for row in rows])


def size_of(name: str) -> str:
    """What tells a member from the others of its family: the first number of its name."""
    found = re.search(r"mcmc, (\d+)|search[^,]*, (\d+ × \d+)|of-(\d+)|\(([\d.]+, \d+)\)", name)
    return next(filter(None, found.groups()), name) if found else name


def reviews_table() -> str:
    """Film reviews: win rate over a plain answer by the gold judge and by the choosing reward."""

    def rates(way: dict) -> str:
        return f"**{way['gold']['win_rate']:.2f}** {way['training']['win_rate']:.2f}"

    return decoded_table("reviews", rates)


def capitals_table() -> str:
    """Closed answers: share of right ones."""
    return decoded_table("capitals", lambda way: f"**{way['accuracy']:.2f}**")


TABLES: dict[str, Callable[[], str]] = {
    "transform": transform_table,
    "reach": reach_table,
    "mismatch": mismatch_table,
    "rollouts": rollouts_table,
    "power": power_table,
    "judge": judge_table,
    "reviews": reviews_table,
    "capitals": capitals_table,
}


def with_table(text: str, name: str) -> str:
    """The page with one table computed anew.

    Raises:
        ValueError: if the page has no place for it.
    """
    start, end = f"<!-- table {name}: python docs/choosing.py --write -->", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{PAGE.name} needs the markers {start!r} and {end!r}, once each.")
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.S)
    return pattern.sub(lambda _: f"{start}\n{TABLES[name]()}\n{end}", text)


def main() -> int:
    """Write the tables, or say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into the page")
    parser.add_argument("--only", choices=TABLES, help="one table")
    arguments = parser.parse_args()
    text, stale = PAGE.read_text(encoding="utf-8"), False
    for name in [arguments.only] if arguments.only else TABLES:
        current = with_table(text, name)
        stale |= current != text
        print(f"{name}: {'as it is' if current == text else 'changed'}", flush=True)
        text = current
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    return 1 if stale and not arguments.write else 0


if __name__ == "__main__":
    sys.exit(main())
