"""`infalign plan`: what each transform would win, before anything is trained."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infalign.cli.changes import experiment_from
from infalign.cli.console import Terminal, print_result, print_table
from infalign.cli.failing import explained

if TYPE_CHECKING:
    from infalign.planner import PlanRow
    from infalign.quantile.procedures import RankProcedure
    from infalign.quantile.transforms import Transform

__all__ = ["plan"]

LARGEST_KL = 8.0
"""Nats; beyond it an aligned policy gives only what the reference says once in three thousand."""


File = Annotated[
    Path | None,
    typer.Argument(metavar="EXPERIMENT", help="Take procedure and KL from an experiment file."),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--procedure",
        "-p",
        metavar="NAME",
        help="best_of_n, worst_of_n, median_of_n, order_statistic or identity; best_of_4 says "
        "n too.",
        show_default="best_of_n",
    ),
]
Count = Annotated[
    int | None,
    typer.Option("--n", "-n", metavar="N", min=1, help="Responses per answer.", show_default="4"),
]
Probabilities = Annotated[
    str | None,
    typer.Option(
        "--probabilities", metavar="P,P,...", help="Of the ranks, worst first: order_statistic."
    ),
]
KLs = Annotated[
    list[float] | None,
    typer.Option(
        "--kl",
        "-k",
        metavar="NATS",
        help="From the reference; may be repeated.",
        show_default="1",
    ),
]
Transforms = Annotated[
    list[str] | None,
    typer.Option(
        "--transform",
        "-t",
        metavar="NAME",
        help="identity, log or exponential(5), beside the optimal one; may be repeated.",
        show_default="all of these, with exp(10) and exp(-10)",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@explained
def plan(
    file: File = None,
    procedure: Name = None,
    n: Count = None,
    probabilities: Probabilities = None,
    kl: KLs = None,
    transform: Transforms = None,
    as_json: AsJson = False,
) -> None:
    """Predict win rates of each transform for a procedure and KL.

    Rows are comparable because they share the KL: β is what to train each with to end there. \
Standard: one response from each side. Decoded: both sides by the procedure. Limit: the largest \
decoded win rate any policy has at this KL.

    Examples:
      [cyan]infalign plan --n 4 --kl 1[/]
      [cyan]infalign plan --procedure worst_of_4 --kl 0.5 --kl 1 --kl 2[/]
      [cyan]infalign plan --transform 'exponential(5)' --json[/]
      [cyan]infalign plan experiment.yaml[/]
    """
    chosen, kls = _asked(file, procedure, n, probabilities, kl or [])
    named = [_transform(name) for name in transform or ()]
    tables = _plans(chosen, kls, [one for one in named if one] if transform else None)
    if as_json:
        print_result(json.dumps([_as_json(chosen, *table) for table in tables], indent=2))
        return
    for asked, rows in tables:
        _print(chosen, asked, rows)


def _asked(
    file: Path | None,
    procedure: str | None,
    n: int | None,
    probabilities: str | None,
    kls: Sequence[float],
) -> "tuple[RankProcedure, Sequence[float]]":
    """The procedure and KLs of the command line, and what it leaves open from the file."""
    experiment = None if file is None else experiment_from(file)
    if experiment is not None and not (procedure or n or probabilities):
        from infalign.quantile.names import procedure_from_name

        chosen = procedure_from_name(experiment.procedure.kind, **_settings(experiment.procedure))
    else:
        chosen = _procedure(procedure or "best_of_n", n, probabilities)
    if experiment is not None and not kls:
        kls = [_planned_kl(experiment, chosen)]
    for kl in kls:
        if not 0 < kl <= LARGEST_KL:
            raise ValueError(
                f"--kl {kl:g}: a KL between 0 and {LARGEST_KL:g} nats is needed; beyond, the "
                "policy would say only what the reference says once in three thousand times."
            )
    return chosen, kls or [1.0]


def _procedure(name: str, n: int | None, probabilities: str | None) -> "RankProcedure":
    from infalign.quantile.names import procedure_from_name

    plain = name.strip().replace("-", "_")
    settings: dict[str, Any] = {}
    if probabilities is not None:
        settings["probabilities"] = _numbers(probabilities)
    if plain.rpartition("_")[2].isdigit():
        if n is not None:
            raise ValueError(f"--procedure {name} says how many responses; leave out --n {n}.")
    elif plain.endswith("_of_n") or n is not None:
        settings["n"] = 4 if n is None else n
    return procedure_from_name(plain, **settings)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"--probabilities {text}: numbers separated by commas are needed, one for each rank, "
            "worst first, as in 0,0,1,0."
        ) from None


def _transform(name: str) -> "Transform | None":
    """The transform of a name such as `log` or `exp(-5)`; None for `optimal`, always there."""
    from infalign.quantile.names import transform_from_name

    plain = name.strip()
    if plain == "optimal":
        return None
    steep = re.fullmatch(r"exp(?:onential)?(?:[(:=]\s*([-+.\deE]+)\s*\)?)?", plain)
    if steep is None:
        return transform_from_name(plain)
    return transform_from_name("exponential", t=float(steep[1]) if steep[1] else 10.0)


def _planned_kl(experiment: Any, procedure: "RankProcedure") -> float:
    """The KL the experiment trains to; where it gives β, the KL its transform has there."""
    training = experiment.training
    if training.kl is not None:
        return training.kl
    from infalign.quantile.names import transform_from_name
    from infalign.quantile.tilting import TiltedPolicy

    settings = _settings(experiment.transform)
    if experiment.transform.kind == "optimal":
        settings = {"procedure": procedure, "beta": training.beta}
    transform = transform_from_name(experiment.transform.kind, **settings)
    return TiltedPolicy(transform, training.beta).kl


def _settings(section: Any) -> dict[str, Any]:
    """What a section of the file says beside its kind."""
    return {name: value for name, value in vars(section).items() if name != "kind"}


def _plans(
    procedure: "RankProcedure", kls: Sequence[float], transforms: "Sequence[Transform] | None"
) -> "list[tuple[float, list[PlanRow]]]":
    from infalign.planner import plan as predicted

    with Terminal().working("solving for the optimal transform"):
        return [(kl, predicted(procedure, kl, transforms=transforms)) for kl in kls]


def _as_json(procedure: "RankProcedure", kl: float, rows: "list[PlanRow]") -> dict[str, Any]:
    return {
        "procedure": procedure.name,
        "candidates": procedure.candidates,
        "kl": kl,
        "transforms": [dataclasses.asdict(row) for row in rows],
    }


def _print(procedure: "RankProcedure", kl: float, rows: "list[PlanRow]") -> None:
    columns = ["transform", "β", "standard", f"decoded: {procedure.name}", "of the limit"]
    cells = [
        [
            row.transform,
            f"{row.beta:.4g}",
            f"{row.standard_win_rate:.3f}",
            f"{row.decoded_win_rate:.3f}",
            f"{100 * row.fraction_of_limit:.1f} %",
        ]
        for row in rows
    ]
    print_table(f"Win rate against the reference at KL {kl:g} nats (½: no change)", columns, cells)
