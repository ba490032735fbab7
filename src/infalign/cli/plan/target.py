"""`plan --target-win-rate`: the least KL to a win rate, for each N."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from infalign.cli.plan.given import (
    Given,
    agreement_of_question,
    procedures_of_question,
    reference_of_question,
    said_ties,
    ties_of_question,
)
from infalign.cli.plan.shown import Answer, Table, nats

if TYPE_CHECKING:
    from infalign.planner import Reach
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.ties import Ties


__all__ = ["ask"]


def ask(given: Given) -> Callable[[], Answer]:
    """The question, checked; the answer takes a while."""
    from infalign.planner.target import refuse_price, refuse_target

    target, price = given["target_win_rate"], given.get("kl_price")
    refuse_target(target)
    refuse_price(price)
    reference = reference_of_question(given, "identity")
    if "n" in given and "ns" not in given:
        given = {**given, "ns": str(given["n"])}
        del given["n"]
    procedures = procedures_of_question(given)
    assert reference is not None
    agreement, ties = agreement_of_question(given), ties_of_question(given)
    return lambda: reached(target, procedures, reference, agreement, ties, price)


def reached(
    target: float,
    procedures: "Sequence[Procedure]",
    reference: "Procedure",
    agreement: float,
    ties: "Ties",
    kl_price: float | None,
) -> Answer:
    """The least KL to a win rate, for each procedure."""
    from infalign.planner import cheapest

    ways = cheapest(
        target,
        procedures,
        reference_procedure=reference,
        agreement=agreement,
        ties=ties,
        kl_price=kl_price,
    )
    alike = _alike(target, procedures, agreement, ties)
    data = {
        "target_win_rate": target,
        "reference_procedure": reference.name,
        "agreement": agreement,
        "ties": ties.intervals,
        "ways": [
            {**vars(way), "kl_decoded_alike": kl} for way, kl in zip(ways, alike, strict=True)
        ],
    }
    return Answer(data, [_table(target, ways, alike, reference, agreement, said_ties(ties))])


def _table(
    target: float,
    ways: "Sequence[Reach]",
    alike: Sequence[float],
    reference: "Procedure",
    agreement: float,
    more: list[str],
) -> Table:
    cells = []
    for way, both in zip(ways, alike, strict=True):
        words = ["efficient"] if way.is_efficient else []
        words += ["knee"] if way.is_knee else []
        words += ["cheapest"] if way.is_cheapest else []
        says = "out of reach" if math.isnan(way.kl) else nats(way.kl)
        says = "–" if way.unsolved else says
        cells.append(
            [
                way.procedure,
                f"{way.candidates:.4g}",
                says,
                nats(way.beta),
                ", ".join(words),
                nats(both),
            ]
        )
    columns = ["procedure", "candidates", "least KL", "β", "", "decoded alike"]
    judged = "" if agreement == 1 else f", by a gold judge of agreement {agreement:.3g}"
    notes = [
        f"Least KL: against the reference decoded by {reference.name}, one opponent for all rows.",
        "Decoded alike: where the reference is decoded as the policy is, and so grows too.",
        "0: no training needed. Efficient: nothing has less KL for as few candidates.",
        "Knee: farthest below the line between the efficient ends, KL against log N.",
        *(f"– {way.procedure}: {way.unsolved}" for way in ways if way.unsolved),
        *more,
    ]
    title = f"Least KL (nats) to a win rate of {target:.12g}{judged}"
    return Table(title, columns, cells, notes)


def _alike(
    target: float, procedures: "Sequence[Procedure]", agreement: float, ties: "Ties"
) -> list[float]:
    from infalign.planner.target import OutOfReach, least_kl

    def least(procedure: "Procedure") -> float:
        try:
            return least_kl(target, procedure, agreement=agreement, ties=ties)
        except (OutOfReach, ArithmeticError):
            return math.nan

    return [least(procedure) for procedure in procedures]
