"""`infalign plan`: win rates of each transform at a procedure and KL."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from infalign.cli.plan.asked import asked_transforms
from infalign.cli.plan.given import (
    Given,
    agreement_of_question,
    procedure_and_kls,
    reference_of_question,
    said_ties,
    ties_of_question,
)
from infalign.cli.plan.shown import Answer, Table, nats, percent, rate

if TYPE_CHECKING:
    from infalign.planner import PlanRow
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.ties import Ties
    from infalign.quantile.transforms import Transform


__all__ = ["ask"]


def ask(given: Given) -> Callable[[], Answer]:
    """The question, checked; the answer takes a while."""
    chosen, kls = procedure_and_kls(given)
    named = asked_transforms(given.get("transform", ()))
    transforms = [one for one in named if one] if named else None
    reference, ties = reference_of_question(given), ties_of_question(given)
    agreement = agreement_of_question(given)
    return lambda: compared(chosen, kls, transforms, reference, agreement, ties)


def compared(
    procedure: "Procedure",
    kls: Sequence[float],
    transforms: "Sequence[Transform] | None",
    reference: "Procedure | None",
    agreement: float,
    ties: "Ties",
) -> Answer:
    """Win rates of each transform."""
    from infalign.planner import plan

    data, tables = [], []
    for kl in kls:
        rows = plan(
            procedure,
            kl,
            transforms=transforms,
            reference_procedure=reference,
            agreement=agreement,
            ties=ties,
        )
        data.append(
            {
                "procedure": procedure.name,
                "candidates": procedure.candidates,
                "reference_procedure": (reference or procedure).name,
                "agreement": agreement,
                "ties": ties.intervals,
                "kl": kl,
                "transforms": rows,
            }
        )
        tables.append(_table(procedure, kl, rows, reference, agreement, said_ties(ties)))
    return Answer(data, tables)


def _table(
    procedure: "Procedure",
    kl: float,
    rows: "Sequence[PlanRow]",
    reference: "Procedure | None",
    agreement: float,
    notes: list[str],
) -> Table:
    has_judge, ahead = agreement != 1, f"decoded: {procedure.name}"
    columns = ["transform", "β", "standard", ahead]
    columns += ["gold judge"] if has_judge else []
    cells = [
        [row.transform, nats(row.beta), rate(row.standard_win_rate), rate(row.decoded_win_rate)]
        + ([rate(row.gold_win_rate)] if has_judge else [])
        + [percent(row.fraction_of_limit)]
        for row in rows
    ]
    title = f"Win rate against the reference{_decoded(reference)} at KL {kl:g} nats"
    title += " (½: no change)" if reference is None else ""
    if has_judge:
        notes = [
            *notes,
            f"Gold judge: agreement ρ = {agreement:.3g}; the limit is of its win rate.",
        ]
    notes = [*notes, *(f"– {row.transform}: {row.unsolved}" for row in rows if row.unsolved)]
    return Table(title, [*columns, "of the limit"], cells, notes)


def _decoded(reference: "Procedure | None") -> str:
    return "" if reference is None else f" decoded by {reference.name}"
