"""The command: one question of several, and which options belong to it."""

from collections.abc import Callable
from typing import Any

from infalign.cli.console import Terminal
from infalign.cli.failing import explained
from infalign.cli.plan import compare, options, target
from infalign.cli.plan import gold as gold_
from infalign.cli.plan import html as html_
from infalign.cli.plan import mismatch as mismatch_
from infalign.cli.plan import power as power_
from infalign.cli.plan import rollouts as rollouts_
from infalign.cli.plan.given import Given
from infalign.cli.plan.own import is_own, lacks_variation
from infalign.cli.plan.shown import Answer, show

__all__ = ["plan"]

JUDGED = {"compare", "target", "mismatch", "rollouts", "gold"}
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
    "pass_rate": {"compare", "target", "rollouts"},
    "tie": {"compare", "target", "rollouts"},
    "difference": {"power"},
    "samples": {"power"},
    "prompts": {"power"},
    "prompt_sd": {"power"},
    "chance": {"power"},
    "confidence": {"power"},
    "agreement": JUDGED,
    "scores": JUDGED,
    "score_columns": JUDGED,
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
    pass_rate: options.PassRate = None,
    tie: options.Tied = None,
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
      [cyan]infalign plan --pass-rate 0.3 --n 8[/]
      [cyan]infalign plan -p mine:LOTTERY -t mine:phi[/]
      [cyan]infalign plan --scores runs/mine --score-columns training,gold[/]
      [cyan]infalign plan experiment.yaml[/]
      [cyan]infalign plan --html plan.html[/]
    """
    given = {key: value for key, value in locals().items() if _is_given(value)}
    question = _question(given)
    _refuse_strangers(question, given)
    if html is not None:
        html_.write(given)
        return
    _refuse_rough(question, given)
    answer = _ASK[question](given)
    with Terminal().working("solving"):
        found = answer()
    show(found, as_json)


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []  # 0 was given


def _question(given: Given) -> str:
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


def _refuse_strangers(question: str, given: Given) -> None:
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


def _refuse_rough(question: str, given: Given) -> None:
    """Raise ValueError where an optimum is needed of a procedure that has none to be found."""
    named = given.get("transform", ["optimal"])
    if question == "rollouts" and "optimal" not in named:
        return
    for name in given.get("procedure", ()):
        if is_own(name) and lacks_variation(name):
            raise ValueError(
                f"--procedure {name} has no first_variation of its own. Finite differences stand "
                "in for it, which are too rough to solve for the optimum that this question is "
                "about; give it in closed form. --rollouts with a --transform needs none."
            )


_ASK: dict[str, Callable[[Given], Callable[[], Answer]]] = {
    "compare": compare.ask,
    "target": target.ask,
    "mismatch": mismatch_.ask,
    "rollouts": rollouts_.ask,
    "power": power_.ask,
    "gold": gold_.ask,
}
