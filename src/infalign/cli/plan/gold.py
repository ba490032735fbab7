"""`plan --gold`: where more N or more KL stops helping by another judge."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from infalign.cli.plan.asked import counts
from infalign.cli.plan.given import (
    Given,
    agreement_of_question,
    procedure_and_kl,
    reference_of_question,
)
from infalign.cli.plan.shown import Answer, Table, rate

if TYPE_CHECKING:
    from infalign.planner import GoldRow
    from infalign.quantile.procedures import Procedure


__all__ = ["ask"]

FLAT = 1e-6
"""A change of win rate that is none."""


def ask(given: Given) -> Callable[[], Answer]:
    """The question, checked; the answer takes a while."""
    agreement = agreement_of_question(given, must=True)
    chosen, kl = procedure_and_kl(given)
    ns = counts("--ns", given.get("ns", "1,2,4,8,16,32,64,128"), 1)
    reference = reference_of_question(given, "identity")
    assert reference is not None
    return lambda: gold_limits(chosen, kl, ns, agreement, reference)


def gold_limits(
    procedure: "Procedure",
    kl: float,
    ns: Sequence[int],
    agreement: float,
    reference: "Procedure",
) -> Answer:
    """Gold win rate by N and by KL."""
    from infalign.planner import gold_by_kl, gold_by_n, stops_at

    what, family = _family(procedure)
    by_n = gold_by_n(agreement, kl, ns, family=family, reference_procedure=reference)
    by_kl = gold_by_kl(agreement, procedure, reference_procedure=reference)
    stop_n, stop_kl = stops_at(by_n), stops_at(by_kl)
    data = {
        "agreement": agreement,
        "reference_procedure": reference.name,
        "by_n": {"kl": kl, "rows": by_n, "stops_at": stop_n and stop_n.candidates},
        "by_kl": {"procedure": procedure.name, "rows": by_kl, "stops_at": stop_kl and stop_kl.kl},
    }
    note = f"Against the reference decoded by {reference.name}; policies optimal for the proxy."
    caveat = "Where a reward can be hacked, gold may fall earlier than ρ alone says."
    if agreement == 0:
        caveat = "At ρ = 0 the judge is indifferent to what the proxy prefers."
    elif agreement > 0 and not any(row.gain < -FLAT for row in [*by_n, *by_kl]):
        caveat = "By ρ alone gold slows but never falls; where a reward can be hacked it may."
    about = f"Win rate, agreement ρ = {agreement:.3g}: "
    first = _table(f"{about}{what} at KL {kl:g} nats", "N", by_n, stop_n)
    second = _table(f"{about}{procedure.name} by KL", "KL", by_kl, stop_kl)
    return Answer(data, [first, dataclasses.replace(second, notes=[*second.notes, note, caveat])])


def _table(title: str, what: str, rows: "Sequence[GoldRow]", stop: "GoldRow | None") -> Table:
    of = "candidates" if what == "N" else "kl"
    cells = [
        [
            f"{getattr(row, of):g}",
            rate(row.proxy_win_rate),
            rate(row.gold_win_rate),
            "–" if math.isnan(row.gain) else f"{100 * row.gain:+.1f}",
        ]
        for row in rows
    ]
    note = (
        f"Each step up to {what} = {getattr(rows[-1], of):g} still gains a point or more by gold."
    )
    falls = next((before for before, row in pairwise(rows) if row.gain < -FLAT), None)
    if stop is not None and stop is not falls:
        note = f"Beyond {what} = {getattr(stop, of):g} the next step gains less than a point."
    elif falls is not None:
        note = f"From {what} = {getattr(falls, of):g} on gold falls."
    unsolved = dict.fromkeys(f"–: {row.unsolved}" for row in rows if row.unsolved)
    notes = [*unsolved] if len(unsolved) and stop is None else [note, *unsolved]
    return Table(title, [what, "by the proxy", "by gold", "points gained"], cells, notes)


def _family(procedure: "Procedure") -> "tuple[str, Callable[[int], Procedure]]":
    """Procedures of this kind by the number of candidates; best-of-N where it has no such."""
    from infalign.quantile.procedures import (
        BestOfN,
        RewindAndRepeat,
        SoftBestOfN,
        WorstOfN,
        median_of,
    )

    match procedure:
        case WorstOfN():
            return "worst-of-N", WorstOfN
        case SoftBestOfN():
            what = f"soft-best-of-N(λ={procedure.temperature:g})"
            return what, lambda n: dataclasses.replace(procedure, n=n)
        case RewindAndRepeat():
            what = f"rewind({procedure.threshold:g}, N)"
            return what, lambda n: dataclasses.replace(procedure, at_most=n)
    if procedure.candidates > 1 and procedure.name.startswith("median-of-"):
        return "median-of-N", median_of
    return "best-of-N", BestOfN
