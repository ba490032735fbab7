"""`plan --html`: a page with sliders that starts from what was asked."""

from typing import TYPE_CHECKING

from infalign.cli.console import Terminal, print_result
from infalign.cli.plan.asked import asked_transform
from infalign.cli.plan.given import Given, agreement_of_question, procedure_and_kls
from infalign.cli.plan.page_start import Start, of_experiment, of_procedure, of_transform

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure

__all__ = ["write"]

KNOWN = {
    "agreement",
    "file",
    "html",
    "kl",
    "n",
    "probabilities",
    "procedure",
    "rollouts",
    "score_columns",
    "scores",
    "transform",
}
"""Options the page can start from."""


def write(given: Given) -> None:
    """Write the page; what it cannot start from is said in notes."""
    from infalign.planner.page import START, startable, write_page

    other = next((option for option in given if option not in KNOWN), None)
    if other is not None:
        option = "json" if other == "as_json" else other.replace("_", "-")
        raise ValueError(
            f"--html and --{option} both came; the page answers all questions by "
            "itself and starts from --procedure, --n, --kl, --transform, --rollouts and "
            "--agreement. Leave the other out."
        )
    path = given["html"]
    if not path.parent.is_dir():
        raise ValueError(f"--html {path}: there is no folder {path.parent}; make it first.")
    chosen, kls = procedure_and_kls(given)
    asked = _asked(given, chosen)
    asked.values |= {"kl": kls[0], "agreement": agreement_of_question(given)}
    if len(kls) > 1:
        asked.notes.append(f"Of {len(kls)} values of --kl the page starts from the first.")
    start = startable(asked.values)
    for name, value in asked.values.items():
        shown = start.get(name, START[name])
        if shown != value:  # a number, moved into the page's range
            asked.notes.append(
                f"{name} {value:g} is beyond what the page shows; it starts from {shown:g}."
            )
    for note in asked.notes:
        Terminal().note(note)
    print_result(str(write_page(path, **start)))


def _asked(given: Given, chosen: "Procedure") -> Start:
    """Where all controls but KL and agreement should stand."""
    from infalign.cli.plan.asked import counts

    start = of_procedure(chosen)
    if "file" in given:
        start.add(of_experiment(given["file"]))
    if names := given.get("transform"):
        start.add(of_transform(asked_transform(names[0])))
        if len(names) > 1:
            start.notes.append(f"Of {len(names)} transforms the page starts from the first.")
    if "rollouts" in given:
        ks = counts("--rollouts", given["rollouts"], 2)
        start.values["k"] = ks[0]
        if len(ks) > 1:
            start.notes.append(f"Of {len(ks)} numbers of rollouts the page starts from the first.")
    return start
