"""The command: one question of several, and which options belong to it."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from infalign.cli.console import Terminal, print_result
from infalign.cli.failing import explained
from infalign.cli.plan import options, questions
from infalign.cli.plan.asked import (
    asked_procedure_and_kls,
    asked_procedures,
    asked_transform,
    counts,
    refuse_kl,
)
from infalign.cli.plan.shown import Answer, show

if TYPE_CHECKING:
    from infalign.quantile.procedures import Procedure

__all__ = ["plan"]

USUAL = "1,2,4,8,16"
"""Numbers of candidates that are compared."""
BELONGS = {  # option: the questions it is part of; all others take every question
    "transform": {"compare", "mismatch", "rollouts"},
    "probabilities": {"compare", "rollouts", "power", "gold"},
    "reference": {"compare", "target", "rollouts", "power", "gold"},
    "kl": {"compare", "mismatch", "rollouts", "power", "gold"},
    "kl_price": {"target"},
    "ns": {"target", "mismatch", "gold"},
    "criterion": {"mismatch"},
    "heatmap": {"mismatch"},
    "loss": {"rollouts"},
    "difference": {"power"},
    "samples": {"power"},
    "prompts": {"power"},
    "prompt_sd": {"power"},
    "chance": {"power"},
    "confidence": {"power"},
    "agreement": {"compare", "target", "mismatch", "gold"},
    "scores": {"compare", "target", "mismatch", "gold"},
    "score_columns": {"compare", "target", "mismatch", "gold"},
}
SAID = {
    "compare": "the table of transforms",
    "target": "--target-win-rate",
    "mismatch": "--mismatch",
    "rollouts": "--rollouts",
    "power": "--power",
    "gold": "--gold",
}


@explained
def plan(
    file: options.File = None,
    procedure: options.Names = None,
    n: options.Count = None,
    probabilities: options.Probabilities = None,
    kl: options.KLs = None,
    transform: options.Transforms = None,
    reference: options.Reference = None,
    target_win_rate: options.Target = None,
    kl_price: options.KLPrice = None,
    ns: options.Ns = None,
    mismatch: options.IsMismatch = False,
    criterion: options.Criterion = None,
    heatmap: options.HeatMap = None,
    rollouts: options.Rollouts = None,
    loss: options.Loss = None,
    power: options.IsPower = False,
    difference: options.Difference = None,
    samples: options.Samples = None,
    prompts: options.Prompts = None,
    prompt_sd: options.PromptSD = None,
    chance: options.Chance = None,
    confidence: options.Confidence = None,
    agreement: options.Rho = None,
    scores: options.Scores = None,
    score_columns: options.ProxyGold = None,
    gold: options.IsGold = False,
    html: options.Html = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict win rates of each transform for a procedure and KL, and answer what follows.

    Rows are comparable because they share the KL: β is what to train each with to end there. \
Standard: one response from each side. Decoded: both sides by the procedure. Limit: the largest \
decoded win rate any policy has at this KL.

    One question at a time:
      [cyan]infalign plan --n 4 --kl 1[/]                  which transform, which β
      [cyan]infalign plan --target-win-rate 0.9[/]         how much KL, by N
      [cyan]infalign plan --mismatch --ns 1,4,16[/]        decoded in another way
      [cyan]infalign plan --rollouts 16,64 --loss 1[/]     to calibrate with
      [cyan]infalign plan --power --difference 2[/]        prompts to measure on
      [cyan]infalign plan --gold --agreement 0.6[/]        where more N stops helping

    Examples:
      [cyan]infalign plan --procedure worst_of_4 --kl 0.5 --kl 1 --kl 2[/]
      [cyan]infalign plan -p 'rewind_and_repeat(0.9, 8)' --json[/]
      [cyan]infalign plan --scores runs/mine --score-columns training,gold[/]
      [cyan]infalign plan experiment.yaml[/]
      [cyan]infalign plan --html plan.html[/]
    """
    given = {key: value for key, value in locals().items() if _is_given(value)}
    question = _question(given)
    _refuse_strangers(question, given)
    if html is not None:
        _write_page(given)
        return
    answer = _ASKED[question](given)
    with Terminal().working("solving"):
        found = answer()
    show(found, as_json)


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []  # 0 was given


def _question(given: dict[str, Any]) -> str:
    signs = {
        "target": "target_win_rate",
        "mismatch": "mismatch",
        "rollouts": "rollouts",
        "power": "power",
        "gold": "gold",
    }
    asked = [question for question, sign in signs.items() if sign in given]
    if "loss" in given and not asked:
        asked = ["rollouts"]
    if len(asked) > 1:
        raise ValueError(
            f"{' and '.join(SAID[question] for question in asked)} are different questions; ask "
            "one at a time."
        )
    return asked[0] if asked else "compare"


def _refuse_strangers(question: str, given: dict[str, Any]) -> None:
    for option in given:
        places = BELONGS.get(option)
        if places is not None and question not in places:
            word = "--" + option.replace("_", "-")
            instead = " or ".join(SAID[place] for place in sorted(places))
            raise ValueError(
                f"{word} does not go with {SAID[question]}; it belongs to {instead}. Leave it out."
            )
    if "agreement" in given and "scores" in given:
        raise ValueError("--agreement and --scores both came; --scores estimates it. Give one.")
    if "score_columns" in given and "scores" not in given:
        raise ValueError("--score-columns names columns of --scores; give that too.")


def _agreement(given: dict[str, Any], *, must: bool = False) -> float:
    """ρ as given, or as estimated from scores; 1 where neither is."""
    if "scores" in given:
        from infalign.cli.plan.scores import agreement_of

        found = agreement_of(given["scores"], given.get("score_columns"))
        Terminal().say(
            f"agreement ρ = {found.value:.3f} (95 %: {found.low:.3f} to {found.high:.3f}, "
            f"{found.prompts} prompts"
            + (f", {found.excluded} left out as all tied)" if found.excluded else ")")
        )
        return found.value
    if must and "agreement" not in given:
        raise ValueError(
            "--gold needs how far the two rewards agree: --agreement 0.6, or --scores PATH to "
            "estimate it from stored scores of both."
        )
    from infalign.planner.judging import refuse_agreement

    refuse_agreement(given.get("agreement", 1.0))
    return given.get("agreement", 1.0)


def _one_kl(given: dict[str, Any]) -> float:
    kls = given.get("kl", [1.0])
    if len(kls) > 1:
        raise ValueError(f"{len(kls)} values of --kl came; this question takes one.")
    refuse_kl(kls[0])
    return kls[0]


def _procedure_and_kl(given: dict[str, Any]) -> "tuple[Procedure, float]":
    if "kl" in given:
        _one_kl(given)
    chosen, kls = _procedure_and_kls(given)
    return chosen, kls[0]


def _procedure_and_kls(given: dict[str, Any]) -> Any:
    names = given.get("procedure", [])
    probabilities, kls = given.get("probabilities"), given.get("kl", [])
    return asked_procedure_and_kls(given.get("file"), names, given.get("n"), probabilities, kls)


def _procedures(given: dict[str, Any]) -> "list[Procedure]":
    _refuse_file(given)
    names = given.get("procedure", [])
    return asked_procedures(names, given.get("n"), None, given.get("ns"), USUAL)


def _refuse_file(given: dict[str, Any]) -> None:
    if "file" in given:
        raise ValueError(
            f"{given['file']}: an experiment has one procedure, and several are compared here. "
            "Leave the file out."
        )


def _reference(given: dict[str, Any], usual: str | None = None) -> "Procedure | None":
    from infalign.quantile.names import procedure_from_name

    name = given.get("reference", usual)
    return None if name is None else procedure_from_name(name)


def _compare(given: dict[str, Any]) -> Callable[[], Answer]:
    chosen, kls = _procedure_and_kls(given)
    named = [asked_transform(name) for name in given.get("transform", ())]
    transforms = [one for one in named if one] if named else None
    reference, agreement = _reference(given), _agreement(given)
    return lambda: questions.compared(chosen, kls, transforms, reference, agreement)


def _target(given: dict[str, Any]) -> Callable[[], Answer]:
    from infalign.planner.target import refuse_price, refuse_target

    target, price = given["target_win_rate"], given.get("kl_price")
    refuse_target(target)
    refuse_price(price)
    if "n" in given and "ns" not in given:
        given = {**given, "ns": str(given["n"])}
        del given["n"]
    procedures, reference = _procedures(given), _reference(given, "identity")
    assert reference is not None
    agreement = _agreement(given)
    return lambda: questions.reached(target, procedures, reference, agreement, price)


def _mismatch(given: dict[str, Any]) -> Callable[[], Answer]:
    from infalign.planner.heatmap import refuse_format
    from infalign.planner.mismatch import refuse_procedures
    from infalign.planner.robust import refuse_criterion

    procedures, kl = _procedures(given), _one_kl(given)
    refuse_procedures(procedures)
    criterion, heatmap = given.get("criterion", "loss"), given.get("heatmap")
    refuse_criterion(criterion)
    if heatmap is not None:
        refuse_format(heatmap)
    named = [asked_transform(name) for name in given.get("transform", ())]
    transforms, agreement = [one for one in named if one], _agreement(given)
    return lambda: questions.mismatched(procedures, kl, transforms, agreement, criterion, heatmap)


def _rollouts(given: dict[str, Any]) -> Callable[[], Answer]:
    chosen, kl = _procedure_and_kl(given)
    ks, loss = counts("--rollouts", given["rollouts"], 2) if "rollouts" in given else [], None
    if "loss" in given:
        loss = given["loss"]
        _refuse_points("--loss", loss)
    named = [asked_transform(name) for name in given.get("transform", ())]
    if len(named) > 1:
        raise ValueError(f"{len(named)} transforms came; --rollouts takes one.")
    transform, reference = named[0] if named else None, _reference(given)
    from infalign.planner.rollouts import refuse_unranked

    refuse_unranked(chosen)
    return lambda: questions.rolled(chosen, kl, ks, loss, transform, reference)


def _power(given: dict[str, Any]) -> Callable[[], Answer]:
    from infalign.planner.power import detectable

    chosen, kl = _procedure_and_kl(given)
    difference = given.get("difference", 2.0)
    _refuse_points("--difference", difference)
    samples = counts("--samples", given["samples"], 1) if "samples" in given else None
    settings = {
        "prompts": given.get("prompts"),
        "prompt_sd": None if "prompt_sd" not in given else given["prompt_sd"] / 100,
        "power": given.get("chance"),
        "confidence": given.get("confidence"),
    }
    checked = {key: value for key, value in settings.items() if value is not None}
    detectable(**{"prompts": 2, "variance": 0.25, **checked})  # refuses what is out of range
    reference = _reference(given)
    return lambda: questions.powered(chosen, kl, difference, samples, reference, **settings)


def _gold(given: dict[str, Any]) -> Callable[[], Answer]:
    agreement = _agreement(given, must=True)
    chosen, kl = _procedure_and_kl(given)
    ns = counts("--ns", given.get("ns", "1,2,4,8,16,32,64,128"), 1)
    reference = _reference(given, "identity")
    assert reference is not None
    return lambda: questions.gold_limits(chosen, kl, ns, agreement, reference)


_ASKED: dict[str, Callable[[dict[str, Any]], Callable[[], Answer]]] = {
    "compare": _compare,
    "target": _target,
    "mismatch": _mismatch,
    "rollouts": _rollouts,
    "power": _power,
    "gold": _gold,
}


def _refuse_points(option: str, points: float) -> None:
    if not (0 < points < 100 and math.isfinite(points)):
        raise ValueError(
            f"{option} {points:g}: points of win rate between 0 and 100 are needed; 2 is a win "
            "rate of 0.02."
        )


def _write_page(given: dict[str, Any]) -> None:
    """The page starts from what was asked for; it has sliders for the rest."""
    from infalign.planner.page import write_page

    known = {"html", "procedure", "n", "kl", "agreement", "scores", "score_columns"}
    other = next((option for option in given if option not in known), None)
    if other is not None:
        raise ValueError(
            f"--html and --{other.replace('_', '-')} both came; the page answers all questions by "
            "itself and starts from --procedure, --n, --kl and --agreement. Leave the other out."
        )
    path = given["html"]
    if not path.parent.is_dir():
        raise ValueError(f"--html {path}: there is no folder {path.parent}; make it first.")
    chosen, kl = _procedure_and_kl(given)
    start: dict[str, str | float] = {"kl": kl, "agreement": _agreement(given)}
    if "n" in given or chosen.candidates != 4:
        start["n"] = chosen.candidates
    kind = chosen.name.split("-of-")[0]
    kinds = {"best": "best_of_n", "worst": "worst_of_n", "median": "median_of_n"}
    if kind in kinds or chosen.name == "identity":
        start["procedure"] = kinds.get(kind, "identity")
    print_result(str(write_page(path, **start)))
