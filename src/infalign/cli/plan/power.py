"""`plan --power`: prompts × samples needed to see a difference."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from infalign.cli.plan.asked import counts
from infalign.cli.plan.given import Given, procedure_and_kl, reference_of_question, refuse_points
from infalign.cli.plan.shown import Answer, Table

if TYPE_CHECKING:
    from infalign.planner import PowerRow
    from infalign.quantile.procedures import Procedure


__all__ = ["ask"]

SMALLEST = 0.01
"""Points: the least difference that is planned for."""
MOST_SD = 50.0
"""Points: half the prompts always won, half never."""


def ask(given: Given) -> Callable[[], Answer]:
    """The question, checked; the answer takes a while."""
    from infalign.planner.power import detectable

    chosen, kl = procedure_and_kl(given)
    difference = given.get("difference", 2.0)
    refuse_points("--difference", difference, SMALLEST)
    _refuse_prompt_sd(given.get("prompt_sd", 0.0))
    samples = counts("--samples", given["samples"], 1) if "samples" in given else None
    settings = {
        "prompts": given.get("prompts"),
        "prompt_sd": None if "prompt_sd" not in given else given["prompt_sd"] / 100,
        "power": given.get("chance"),
        "confidence": given.get("confidence"),
    }
    checked = {key: value for key, value in settings.items() if value is not None}
    detectable(**{"prompts": 2, "variance": 0.25, **checked})  # refuses what is out of range
    reference = reference_of_question(given)
    return lambda: powered(chosen, kl, difference, samples, reference, **settings)


def _refuse_prompt_sd(points: float) -> None:
    if not 0 <= points <= MOST_SD:
        raise ValueError(
            f"--prompt-sd {points:g}: points from 0 to {MOST_SD:g} are needed; a win rate between "
            "0 and 1 does not vary more from prompt to prompt."
        )


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
    data = {
        "procedure": procedure.name,
        "kl": kl,
        "difference": difference / 100,
        **given,
        "rows": [{**vars(row), "responses_paired": row.responses_paired} for row in rows],
    }
    return Answer(data, [_table(procedure.name, kl, difference, rows, given)])


def _table(
    name: str, kl: float, difference: float, rows: "Sequence[PowerRow]", given: Given
) -> Table:
    has_prompts = "prompts" in given
    cells = [
        [
            str(row.samples),
            "–" if math.isnan(row.standard_error) else f"{row.standard_error:.2g}",
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
    if any(math.isnan(row.standard_error) for row in rows):
        notes.append(
            "–: saturated; the optimal policy wins so surely that its error is only rounding, and "
            "no gain on it can be seen. The prompts are for the policy that is worse by as much."
        )
    title = (
        f"Prompts to see {difference:g} points: {name}, KL {kl:g}, confidence "
        f"{100 * sure:g} %, power {100 * chance:g} %"
    )
    return Table(title, columns, cells, notes)
