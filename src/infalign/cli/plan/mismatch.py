"""`plan --mismatch`: train-for × decode-with, and the best worst case."""

import contextlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infalign.cli.plan.asked import asked_transforms
from infalign.cli.plan.given import Given, agreement_of_question, one_kl, procedures_of_question
from infalign.cli.plan.shown import Answer, Table, rate

if TYPE_CHECKING:
    from infalign.planner import Mismatch, Robust
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.transforms import Transform


__all__ = ["ask"]


def ask(given: Given) -> Callable[[], Answer]:
    """The question, checked; the answer takes a while."""
    from infalign.planner.heatmap import refuse_format
    from infalign.planner.mismatch import refuse_procedures
    from infalign.planner.robust import refuse_criterion

    procedures, kl = procedures_of_question(given), one_kl(given)
    refuse_procedures(procedures)
    criterion, heatmap = given.get("criterion", "loss"), given.get("heatmap")
    refuse_criterion(criterion)
    if heatmap is not None:
        refuse_format(heatmap)
    named = asked_transforms(given.get("transform", ()))
    transforms, agreement = [one for one in named if one], agreement_of_question(given)
    return lambda: mismatched(procedures, kl, transforms, agreement, criterion, heatmap)


def mismatched(
    procedures: "Sequence[Procedure]",
    kl: float,
    transforms: "Sequence[Transform]",
    agreement: float,
    criterion: str,
    heatmap: Path | None,
) -> Answer:
    """Train-for × decode-with, and the robust row."""
    from infalign.planner import mismatch, robust, write_heatmap

    best = None
    with contextlib.suppress(ArithmeticError):  # without every limit there is no worst case
        best = robust(procedures, kl, criterion=criterion, agreement=agreement)
    rows = [*transforms, best.transform] if best else transforms
    found = mismatch(procedures, kl, transforms=rows, agreement=agreement)
    if heatmap is not None:
        write_heatmap(found, heatmap)
    data = {"agreement": agreement, **_data(found, best)}
    return Answer(data, [_table(found, best, heatmap)])


def _data(found: "Mismatch", best: "Robust | None") -> dict[str, Any]:
    return {
        "kl": found.kl,
        "trained_for": found.rows,
        "decoded_with": found.columns,
        "win_rates": found.win_rates,
        "limits": found.limits,
        "betas": found.betas,
        "worst_losses": found.worst_losses,
        "worst_win_rates": found.worst_win_rates,
        "unsolved": found.unsolved,
        "robust": best
        and {
            "criterion": best.criterion,
            "beta": best.transform.beta,
            "is_concave": best.is_concave,
            "weights": dict(zip(best.procedures, best.weights.tolist(), strict=True)),
            "worst": best.worst,
            "gap": best.gap,
        },
    }


def _table(found: "Mismatch", best: "Robust | None", heatmap: Path | None) -> Table:
    cells = [
        [name, *map(rate, wins), "–" if math.isnan(worst) else f"{100 * worst:.1f}"]
        for name, wins, worst in zip(found.rows, found.win_rates, found.worst_losses, strict=True)
    ]
    notes = [
        "Worst: the row's largest loss to a limit, in points. Both sides are decoded alike.",
        *(f"–: {why}" for why in found.unsolved),
        *(_about(best) if best else ["Robust: not found, since not all limits or laws were."]),
    ]
    if heatmap is not None:
        notes.append(f"Heat map: {heatmap}")
    names = [name.removeprefix("best-of-") for name in found.columns]
    is_short = all(name.isdigit() for name in names)  # many columns fit in 80 then
    columns = ["trained for", *(names if is_short else found.columns), "worst"]
    title = f"Win rate at KL {found.kl:g} nats, decoded with{' best-of' if is_short else ''}"
    return Table(title, columns, cells, notes)


def _about(best: "Robust") -> list[str]:
    binding = ", ".join(
        f"{name} {weight:.2f}"
        for name, weight in zip(best.procedures, best.weights, strict=True)
        if weight > 1e-3
    )
    what = "largest loss" if best.criterion == "loss" else "smallest win rate"
    notes = [
        f"Robust: no policy of this KL has a better {what} than {best.worst:.4f} (certified to "
        f"{max(best.gap, 0):.0e}).",
        f"Binding: {binding} (weights). Train it with β = {best.transform.beta:.4g}.",
    ]
    if not best.is_concave:
        notes.insert(1, "The certificate rests on a search: not all win rates here are concave.")
    return notes
