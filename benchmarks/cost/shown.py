"""The claim's lines of the table, and its figure."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.reading import Row

__all__ = ["NAMES", "draw", "rows"]

Result = Mapping[str, Any]

NAMES = {
    "online": "ours: Online, given answers",
    "online-separate": "ours: Online, nothing shared",
    "trl-rloo": "TRL RLOO, given answers",
    "online-sampled": "ours: Online, sampling too",
    "trl-rloo-sampled": "TRL RLOO, sampling too",
    "fit": "ours: Fit",
    "regression": "ours: Regression",
    "dpo": "ours: DPO, reference stored",
    "dpo-separate": "ours: DPO, nothing shared",
    "dpo-anew": "ours: DPO, reference anew",
    "trl-dpo-cached": "TRL DPO, reference cached",
    "trl-dpo": "TRL DPO, reference anew",
    "trl-dpo-checkpointed": "TRL DPO, checkpointing",
}
"""What a figure calls a contender, in its order."""
RIVALS = (
    ("RLOO on given answers", "trl-rloo / online", "TRL's RLOOTrainer"),
    ("RLOO, sampling included", "trl-rloo-sampled / online-sampled", "TRL's RLOOTrainer"),
    ("DPO, reference stored", "trl-dpo-cached / dpo", "TRL's DPOTrainer, precomputed reference"),
)
SAVED = (
    ("one reading of a prompt for its answers", "online-separate / online"),
    ("stored reference log-probabilities (DPO)", "dpo-anew / dpo"),
)


def rows(result: Result) -> list[Row]:
    """A line for each of TRL's trainers, one for what sharing and storing save."""
    found = [row for row in (_rival(result, *rival) for rival in RIVALS) if row is not None]
    parts = [part for part in (_saved(result, *saving) for saving in SAVED) if part]
    if parts:
        claim = "What a step would cost without sharing and without the store"
        found.append(Row(claim, "; ".join(parts), "our step with both: 1 ×", None))
    return found


def _of(result: Result, ratio: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Cases in which two contenders took turns, with their ratio."""
    for name, case in result["cases"].items():
        if ratio in case["ratios"]:
            yield name, case["ratios"][ratio]


def _rival(result: Result, what: str, ratio: str, instead: str) -> Row | None:
    found = list(_of(result, ratio))
    if not found:
        return None
    number = "; ".join(
        f"{name} prompts: {_times(r)} the time, {r['memory']:.2g} × the memory" for name, r in found
    )
    holds = all(r["least"] >= 1 for _, r in found)
    other = ratio.split(" / ")[0]
    costs = (result["cases"][name]["contenders"][other]["ms per token"] for name, _ in found)
    per_token = ", ".join(f"{cost:.3g}" for cost in costs)
    return Row(
        f"A training step costs no more than TRL's, per token trained on ({what}); TRL needs",
        number,
        f"{instead}, {per_token} ms per token",
        holds,
    )


def _saved(result: Result, what: str, ratio: str) -> str:
    found = [f"{name} {_times(r)}" for name, r in _of(result, ratio)]
    return f"{what}: {', '.join(found)}" if found else ""


def _times(ratio: Mapping[str, Any]) -> str:
    """Median, least and most of so many rounds: too few for an interval."""
    span = f"{ratio['least']:.3g} … {ratio['most']:.3g}"
    return f"{ratio['time']:.3g} × ({span}, {ratio['turns']} rounds)"


def draw(result: Result, folder: Path) -> None:
    """`cost.png`: milliseconds and memory per token, a row of panels for each case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = result["cases"]
    sizes = [len(case["contenders"]) for case in cases.values()]
    figure, axes = plt.subplots(
        len(cases),
        2,
        figsize=(10, 1.0 + 0.3 * sum(sizes) + 0.55 * len(sizes)),
        height_ratios=[size + 0.6 for size in sizes],
        squeeze=False,
        layout="constrained",
        sharex="col",
    )
    for (name, case), (left, right) in zip(cases.items(), axes, strict=True):
        _panels(left, right, name, case)
    axes[-1][0].set_xlabel("processor time per token trained on, ms (|: each step)")
    axes[-1][1].set_xlabel("peak memory over the model, MB per token")
    figure.savefig(folder / "cost.png", dpi=90)
    plt.close(figure)


def _panels(left: Any, right: Any, name: str, case: Mapping[str, Any]) -> None:
    shown = [key for key in NAMES if key in case["contenders"]]
    facts, places = [case["contenders"][key] for key in shown], range(len(shown))
    colours = ["#c8693a" if key.startswith("trl") else "#2b6a99" for key in shown]
    times = [one["ms per token"] for one in facts]
    memory = [one["memory rise, MB per token"] for one in facts]
    for axis, values in ((left, times), (right, memory)):
        axis.barh(places, values, color=colours, height=0.68)
        for place, value in zip(places, values, strict=True):
            axis.annotate(
                f"{value:.3g}", (value, place), (14, 0), textcoords="offset points", va="center"
            )
        axis.spines[["top", "right"]].set_visible(False)
        axis.invert_yaxis()
        axis.margins(x=0.2)
    for place, one in zip(places, facts, strict=True):
        steps = [1e3 * seconds / one["tokens"] for seconds in one["seconds"]]
        left.plot(steps, [place] * len(steps), "|", color="black", markersize=8)
    left.set_yticks(places, [NAMES[key] for key in shown])
    right.set_yticks([])
    size = case["case"]
    left.set_title(
        f"{name}: {size['prompts']} × {size['k']} answers of {size['cap']} tokens at most, prompts "
        f"of {size['prompt_tokens']}, {size['dtype']}",
        loc="left",
        fontsize=10,
    )
