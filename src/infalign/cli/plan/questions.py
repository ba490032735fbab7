"""The questions: each takes what was asked for and answers with tables and data."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infalign.cli.plan.shown import Answer, Table, nats, percent, rate

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure
    from infalign.quantile.transforms import Transform

__all__ = ["compared", "gold_limits", "mismatched", "powered", "reached", "rolled"]


def compared(
    procedure: "Procedure",
    kls: Sequence[float],
    transforms: "Sequence[Transform] | None",
    reference: "Procedure | None",
    agreement: float,
) -> Answer:
    """Win rates of each transform."""
    from infalign.planner import plan

    data, tables = [], []
    has_judge, ahead = agreement != 1, f"decoded: {procedure.name}"
    for kl in kls:
        rows = plan(
            procedure,
            kl,
            transforms=transforms,
            reference_procedure=reference,
            agreement=agreement,
        )
        data.append(
            {
                "procedure": procedure.name,
                "candidates": procedure.candidates,
                "reference_procedure": (reference or procedure).name,
                "agreement": agreement,
                "kl": kl,
                "transforms": rows,
            }
        )
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
        notes = []
        if has_judge:
            notes = [f"Gold judge: agreement ρ = {agreement:.3g}; the limit is of its win rate."]
        tables.append(Table(title, [*columns, "of the limit"], cells, notes))
    return Answer(data, tables)


def reached(
    target: float,
    procedures: "Sequence[Procedure]",
    reference: "Procedure",
    agreement: float,
    kl_price: float | None,
) -> Answer:
    """The least KL to a win rate, for each procedure."""
    from infalign.planner import cheapest

    ways = cheapest(
        target,
        procedures,
        reference_procedure=reference,
        agreement=agreement,
        kl_price=kl_price,
    )
    alike = _alike(target, procedures, agreement, [way.kl for way in ways])
    data = {
        "target_win_rate": target,
        "reference_procedure": reference.name,
        "agreement": agreement,
        "ways": [
            {**vars(way), "kl_decoded_alike": kl} for way, kl in zip(ways, alike, strict=True)
        ],
    }
    cells = []
    for way, both in zip(ways, alike, strict=True):
        words = ["efficient"] if way.is_efficient else []
        words += ["knee"] if way.is_knee else []
        words += ["cheapest"] if way.is_cheapest else []
        says = "out of reach" if math.isnan(way.kl) else nats(way.kl)
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
    ]
    title = f"Least KL (nats) to a win rate of {target:g}{judged}"
    return Answer(data, [Table(title, columns, cells, notes)])


def _alike(
    target: float, procedures: "Sequence[Procedure]", agreement: float, kls: Sequence[float]
) -> list[float]:
    from infalign.planner import least_kl

    def least(procedure: "Procedure") -> float:
        try:
            return least_kl(target, procedure, agreement=agreement)
        except ValueError:
            return math.nan

    return [least(procedure) for procedure in procedures]


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

    best = robust(procedures, kl, criterion=criterion, agreement=agreement)
    found = mismatch(procedures, kl, transforms=[*transforms, best.transform], agreement=agreement)
    if heatmap is not None:
        write_heatmap(found, heatmap)
    data = {
        "kl": kl,
        "agreement": agreement,
        "trained_for": found.rows,
        "decoded_with": found.columns,
        "win_rates": found.win_rates,
        "limits": found.limits,
        "betas": found.betas,
        "worst_losses": found.worst_losses,
        "worst_win_rates": found.worst_win_rates,
        "robust": {
            "criterion": best.criterion,
            "beta": best.transform.beta,
            "is_concave": best.is_concave,
            "weights": dict(zip(best.procedures, best.weights.tolist(), strict=True)),
            "worst": best.worst,
            "gap": best.gap,
        },
    }
    cells = [
        [name, *map(rate, wins), f"{100 * worst:.1f}"]
        for name, wins, worst in zip(found.rows, found.win_rates, found.worst_losses, strict=True)
    ]
    binding = ", ".join(
        f"{name} {weight:.2f}"
        for name, weight in zip(best.procedures, best.weights, strict=True)
        if weight > 1e-3
    )
    what = "largest loss" if criterion == "loss" else "smallest win rate"
    notes = [
        "Worst: the row's largest loss to a limit, in points. Both sides are decoded alike.",
        f"Robust: no policy of this KL has a better {what} than {best.worst:.4f} (certified to "
        f"{max(best.gap, 0):.0e}).",
        f"Binding: {binding} (weights). Train it with β = {best.transform.beta:.4g}.",
    ]
    if heatmap is not None:
        notes.append(f"Heat map: {heatmap}")
    if not best.is_concave:
        notes.insert(2, "The certificate rests on a search: not all win rates here are concave.")
    names = [name.removeprefix("best-of-") for name in found.columns]
    is_short = all(name.isdigit() for name in names)  # many columns fit in 80 then
    columns = ["trained for", *(names if is_short else found.columns), "worst"]
    title = f"Win rate at KL {kl:g} nats, decoded with{' best-of' if is_short else ''}"
    return Answer(data, [Table(title, columns, cells, notes)])


def rolled(
    procedure: "Procedure",
    kl: float,
    ks: Sequence[int],
    loss: float | None,
    transform: "Transform | None",
    reference: "Procedure | None",
) -> Answer:
    """What K rollouts cost."""
    from infalign.planner import enough_rollouts, rollouts

    chosen = transform or "optimal"
    name = transform.name if transform else "optimal"
    rows = rollouts(procedure, kl, ks, chosen, reference_procedure=reference)
    enough, notes = None, []
    if loss is not None:
        enough = enough_rollouts(procedure, kl, loss / 100, chosen, reference_procedure=reference)
        notes = [f"Enough to lose no more than {loss:g} points: K = {enough}."]
    if any(math.isnan(row.win_rate) for row in rows):
        notes.append("–: so few rollouts cannot express this KL.")
    data = {
        "procedure": procedure.name,
        "kl": kl,
        "transform": name,
        "rollouts": rows,
        "loss": loss,
        "enough": enough,
    }
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
    title = f"Calibrated with K rollouts per prompt, {name}, KL {kl:g} nats"
    tables = [Table(title, columns, cells, notes)] if cells else []
    if not cells:
        tables = [Table(title, ["points to lose", "K"], [[f"{loss:g}", str(enough)]])]
    return Answer(data, tables)


def powered(
    procedure: "Procedure",
    kl: float,
    difference: float,
    samples: Sequence[int] | None,
    reference: "Procedure | None",
    **settings: float | int | None,
) -> Answer:
    """Prompts × samples to see a difference of so many points."""
    from infalign.planner import power

    n = max(procedure.candidates, (reference or procedure).candidates)
    chosen = [n, 2 * n, 4 * n, 8 * n] if samples is None else samples
    given = {key: value for key, value in settings.items() if value is not None}
    rows = power(
        procedure,
        difference / 100,
        chosen,
        kl=kl,
        reference_procedure=reference,
        **given,  # pyright: ignore[reportArgumentType]
    )
    has_prompts = "prompts" in given
    data = {
        "procedure": procedure.name,
        "kl": kl,
        "difference": difference / 100,
        **given,
        "rows": [{**vars(row), "responses_paired": row.responses_paired} for row in rows],
    }
    cells = [
        [
            str(row.samples),
            f"{row.standard_error:.3f}",
            str(row.prompts_against_reference),
            str(row.prompts_paired),
            str(row.prompts_unpaired),
            f"{row.responses_paired:,}",
        ]
        + ([f"{100 * row.detectable:.2f}"] if has_prompts else [])
        for row in rows
    ]
    columns = ["samples", "error", "against reference", "two policies", "unpaired", "responses"]
    columns += [f"{given['prompts']} prompts show"] if has_prompts else []
    sure, chance = given.get("confidence", 0.95), given.get("power", 0.8)
    notes = [
        "Samples: of each side, to each prompt. Error: standard, of one prompt's win rate.",
        "Two policies: on the same prompts and reference samples; unpaired: each with its own.",
        "Responses: of both policies and the reference, in all.",
    ]
    if not given.get("prompt_sd"):
        notes.append("The true win rate is taken as equal on all prompts; --prompt-sd if not.")
    title = (
        f"Prompts to see {difference:g} points: {procedure.name}, KL {kl:g}, confidence "
        f"{100 * sure:g} %, power {100 * chance:g} %"
    )
    return Answer(data, [Table(title, columns, cells, notes)])


def gold_limits(
    procedure: "Procedure",
    kl: float,
    ns: Sequence[int],
    agreement: float,
    reference: "Procedure",
) -> Answer:
    """Gold win rate by N and by KL."""
    from infalign.planner import gold_by_kl, gold_by_n, stops_at

    by_n = gold_by_n(agreement, kl, ns, reference_procedure=reference)
    by_kl = gold_by_kl(agreement, procedure, reference_procedure=reference)
    stop_n, stop_kl = stops_at(by_n), stops_at(by_kl)
    data = {
        "agreement": agreement,
        "reference_procedure": reference.name,
        "by_n": {"kl": kl, "rows": by_n, "stops_at": stop_n and stop_n.candidates},
        "by_kl": {"procedure": procedure.name, "rows": by_kl, "stops_at": stop_kl and stop_kl.kl},
    }
    tables = []
    for rows, stop, of, title in (
        (by_n, stop_n, "candidates", f"best-of-N at KL {kl:g} nats"),
        (by_kl, stop_kl, "kl", f"{procedure.name} by KL"),
    ):
        cells = [
            [
                f"{getattr(row, of):g}",
                rate(row.proxy_win_rate),
                rate(row.gold_win_rate),
                "–" if math.isnan(row.gain) else f"{100 * row.gain:+.1f}",
            ]
            for row in rows
        ]
        last = f"{getattr(rows[-1], of):g}"
        word = "N" if of == "candidates" else "KL"
        note = f"Each step up to {word} = {last} still gains a point or more by gold."
        if stop is not None:
            note = f"Beyond {word} = {getattr(stop, of):g} the next step gains less than a point."
        columns = [word, "by the proxy", "by gold", "points gained"]
        heading = f"Win rate, agreement ρ = {agreement:.3g}: {title}"
        tables.append(Table(heading, columns, cells, [note]))
    tables[-1] = dataclasses.replace(
        tables[-1],
        notes=[
            *tables[-1].notes,
            f"Against the reference decoded by {reference.name}; policies optimal for the proxy.",
        ],
    )
    return Answer(data, tables)


def _decoded(reference: "Procedure | None") -> str:
    return "" if reference is None else f" decoded by {reference.name}"
