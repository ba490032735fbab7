"""`plan --rollouts`: what K calibration rollouts cost, how many are enough."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from infalign.cli.plan.asked import asked_transforms, counts
from infalign.cli.plan.given import (
    Given,
    agreement_of_question,
    procedure_and_kl,
    reference_of_question,
    refuse_points,
    said_ties,
    ties_of_question,
)
from infalign.cli.plan.shown import Answer, Table, percent, rate

if TYPE_CHECKING:
    from infalign.planner import RolloutRow
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.transforms import Transform


__all__ = ["ask"]

MOST_ROLLOUTS = 65_536
"""K that the plan is computed for."""


def ask(given: Given) -> Callable[[], Answer]:
    """The question, checked; the answer takes a while."""
    chosen, kl = procedure_and_kl(given)
    ks, loss = counts("--rollouts", given["rollouts"], 2) if "rollouts" in given else [], None
    _refuse_many(ks)
    if "loss" in given:
        loss = given["loss"]
        refuse_points("--loss", loss)
    named = asked_transforms(given.get("transform", ()))
    if len(named) > 1:
        raise ValueError(f"{len(named)} transforms came; --rollouts takes one.")
    transform, reference = named[0] if named else None, reference_of_question(given)
    contest = {
        "reference_procedure": reference,
        "agreement": agreement_of_question(given),
        "ties": ties_of_question(given),
    }
    return lambda: rolled(chosen, kl, ks, loss, transform, contest)


def _refuse_many(ks: Sequence[int]) -> None:
    for k in ks:
        if k > MOST_ROLLOUTS:
            raise ValueError(
                f"--rollouts {k}: at most {MOST_ROLLOUTS:,} are planned for; long before, a "
                "prompt's rewards are known well enough (--loss 0.1 says how many are)."
            )


def rolled(
    procedure: "Procedure",
    kl: float,
    ks: Sequence[int],
    loss: float | None,
    transform: "Transform | None",
    contest: dict[str, Any],
) -> Answer:
    """What K rollouts cost."""
    from infalign.planner import enough_rollouts, rollouts

    chosen = transform or "optimal"
    name = transform.name if transform else "optimal"
    rows = rollouts(procedure, kl, ks, chosen, **contest)
    enough = None
    if loss is not None:
        enough = enough_rollouts(procedure, kl, loss / 100, chosen, **contest)
    reference, agreement = contest["reference_procedure"], contest["agreement"]
    data = {
        "procedure": procedure.name,
        "reference_procedure": (reference or procedure).name,
        "agreement": agreement,
        "ties": contest["ties"].intervals,
        "kl": kl,
        "transform": name,
        "rollouts": rows,
        "loss": loss,
        "enough": enough,
    }
    title = f"Calibrated with K rollouts per prompt, {name}, KL {kl:g} nats"
    notes = said_ties(contest["ties"])
    if agreement != 1:
        notes += [f"Win rates by the gold judge, agreement ρ = {agreement:.3g}."]
        notes += [] if transform else ["Optimal: for that judge, not for the reward that selects."]
    if not rows:
        table = Table(title, ["points to lose", "K"], [[f"{loss:g}", str(enough)]], notes)
    else:
        table = _table(title, procedure, rows, loss, enough, notes)
    return Answer(data, [table])


def _table(
    title: str,
    procedure: "Procedure",
    rows: "Sequence[RolloutRow]",
    loss: float | None,
    enough: int | None,
    notes: list[str],
) -> Table:
    if enough is not None:
        notes = [*notes, f"Enough to lose no more than {loss:g} points: K = {enough}."]
    if any(math.isnan(row.win_rate) for row in rows):
        notes = [*notes, "–: so few rollouts cannot express this KL."]
    cells = [
        [
            str(row.k),
            rate(row.win_rate),
            "–" if math.isnan(row.loss) else f"{100 * row.loss:.1f}",
            percent(row.fraction),
            f"{row.largest_kl:.2f}",
        ]
        for row in rows
    ]
    columns = ["K", f"decoded: {procedure.name}", "points lost", "of the gain", "largest KL"]
    return Table(title, columns, cells, notes)
