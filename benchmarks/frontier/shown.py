"""What claim 1 tells the table, its own tables, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.frontier import text_shown
from benchmarks.reading import Row

__all__ = [
    "OTHERS", "ahead", "best_rival", "draw", "found", "fraction", "points_of", "rows",
    "seeds_table", "table", "verdict", "write_tables",
]  # fmt: skip

UNTOLD = (
    "raw", "normalised", "log_sigmoid", "ipo", "dpo", "bonbon", "vbon", "weighted_sft", "raft",
)  # fmt: skip
"""Published methods that do not know the procedure."""
TOLD = ("max_at_n", "max_reward_at_n", "qrpo", "qrpo_published")
"""Rivals that do."""
PLACES = (
    ("openings", "best-of-4", "language model"),
    ("openings", "worst-of-4", "language model"),
    ("answers", "best-of-4", "AlpacaEval answers"),
    ("harmless", "worst-of-4", "HH harmless"),
)
"""World, procedure and how rows name the world."""

OTHERS = {"gold": "gold heads", "judge": "GPT-4's own scores", "vader": "word counts (VADER)"}
"""Judges that are not trained on."""


def rows(result: Mapping[str, Any]) -> list[Row]:
    """Training prompts, held-out prompts, other judges, rivals that know the procedure or not."""
    lines = [
        _against_raw(result, "train", 1.0, "on the prompts trained on"),
        _against_raw(result, "held-out", 0.4, "on held-out prompts"),
        _by_other_judges(result),
        _against_best(result, TOLD, "of the rivals that are told the procedure"),
        _against_best(result, UNTOLD, "of the methods that do not know the procedure"),
    ]
    if "text" in result:
        lines += text_shown.rows(result["text"])
    return [line for line in lines if line]


def verdict(intervals: Sequence[tuple[float, float]]) -> bool | None:
    """True where all of them lie above 0, False where one lies below, else None."""
    if any(high < 0 for _, high in intervals):
        return False
    return True if all(low > 0 for low, _ in intervals) else None


def _against_raw(result: Mapping[str, Any], split: str, kl: float, where: str) -> Row | None:
    told, instead, intervals = [], [], []
    for world, procedure, place in PLACES:
        case = found(result, world, procedure, split, kl)
        if case and "ahead" in _read(case, "training").get("raw", {}):
            seeds = _over_seeds(result, world, procedure, split)
            told.append(
                f"{place}, {procedure}: {points_of(case, 'raw')}{seeds}, "
                f"{fraction(case, 'optimal'):.2f} of the limit"
            )
            instead.append(f"{case['methods']['raw']['training']['win']:.3f}")
            intervals.append(ahead(case, "raw"))
    if not told:
        return None
    return Row(
        f"by the reward trained on, the optimal transform wins more than raw reward at KL {kl:g} "
        f"{where}",
        "; ".join(told),
        f"RL on the raw reward: {', '.join(instead)}",
        holds=verdict(intervals),
    )


def _over_seeds(result: Mapping[str, Any], world: str, procedure: str, split: str) -> str:
    where = {"world": world, "procedure": procedure, "split": split}.items()
    gaps = [
        100 * record["methods"]["raw"]["training"]["ahead"]
        for record in result.get("seeds", [])
        if where <= record.items() and "ahead" in _read(record, "training").get("raw", {})
    ]
    return f" [{len(gaps)} seeds: {min(gaps):+.1f} to {max(gaps):+.1f}]" if len(gaps) > 1 else ""


def _by_other_judges(result: Mapping[str, Any]) -> Row | None:
    judged = [
        (case, judge)
        for case in result["cases"]
        for judge in ("gold", "judge", "vader")
        if case["procedure"].endswith("-4") and "ahead" in _read(case, judge).get("raw", {})
    ]
    if not judged:
        return None
    told = []
    for judge, name in OTHERS.items():
        cases = [case for case, asked in judged if asked == judge]
        if cases:
            gaps = [100 * case["methods"]["raw"][judge]["ahead"] for case in cases]
            counted = _counted([ahead(case, "raw", judge) for case in cases])
            told.append(f"{name}: {min(gaps):+.1f} to {max(gaps):+.1f} points, {counted}")
    return Row(
        "the same by judges that nothing was trained on, all worlds, KLs and splits at N = 4",
        "; ".join(told),
        "RL on the raw reward",
        holds=verdict([ahead(case, "raw", judge) for case, judge in judged]),
    )


def _counted(intervals: Sequence[tuple[float, float]]) -> str:
    more, less = sum(low > 0 for low, _ in intervals), sum(high < 0 for _, high in intervals)
    return f"significantly more in {more}, less in {less} of {len(intervals)} correlated settings"


def _against_best(result: Mapping[str, Any], among: Sequence[str], which: str) -> Row | None:
    pairs = [(case, best_rival(case, among=among)) for case in result["cases"]]
    rivals = [(case, rival) for case, rival in pairs if rival]
    if not rivals:
        return None
    read = {n for case, _ in rivals for n in _read(case, "training") if n in among}
    gaps = sorted(case["methods"][rival]["training"]["ahead"] * 100 for case, rival in rivals)
    intervals = [ahead(case, rival) for case, rival in rivals]
    return Row(
        f"by the reward trained on, it wins more than the best {which}, over all worlds, "
        "procedures, KLs and splits",
        f"{_counted(intervals)}; {gaps[0]:+.1f} to {gaps[-1]:+.1f}, median "
        f"{gaps[len(gaps) // 2]:+.1f} points",
        f"the best of {len(read)}, chosen after the fact in each setting",
        holds=verdict(intervals),
    )


def found(
    result: Mapping[str, Any], world: str, procedure: str, split: str, kl: float
) -> Mapping[str, Any] | None:
    """The record of a setting."""
    for case in result["cases"]:
        named = (case["world"], case["procedure"], case["split"], case["kl"])
        if named == (world, procedure, split, kl):
            return case
    return None


def _read(case: Mapping[str, Any], judge: str) -> dict[str, Mapping[str, float]]:
    return {name: kept[judge] for name, kept in case["methods"].items() if judge in kept}


def ahead(case: Mapping[str, Any], name: str, judge: str = "training") -> tuple[float, float]:
    """95 % interval of what the main method is ahead of another, paired by prompt."""
    kept = case["methods"][name][judge]
    wide = float(stats.t.ppf(0.975, case["prompts"] - 1)) * kept["ahead_se"]
    return kept["ahead"] - wide, kept["ahead"] + wide


def points_of(case: Mapping[str, Any], name: str, judge: str = "training") -> str:
    """The same in points: `+7.3 points (5.9 to 8.7)`."""
    low, high = (100 * end for end in ahead(case, name, judge))
    return f"{100 * case['methods'][name][judge]['ahead']:+.1f} points ({low:.1f} to {high:.1f})"


def fraction(case: Mapping[str, Any], name: str, of: str = "limit") -> float:
    """(W − ½)/(W* − ½), of the limit or of the ceiling of listed responses."""
    return (case["methods"][name]["training"]["win"] - 0.5) / (case[of] - 0.5)


def best_rival(
    case: Mapping[str, Any], judge: str = "training", among: Sequence[str] = UNTOLD
) -> str | None:
    """The one that wins most among some methods; None where there is none to compare."""
    kept = _read(case, judge)
    rivals = [name for name in among if "ahead" in kept.get(name, {})]
    return max(rivals, key=lambda name: kept[name]["win"]) if rivals else None


def table(case: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """One setting in Markdown, most wins first."""
    main, most = titles[case["main"]], f"ceiling {case['ceiling']:.3f}"
    known = _read(case, "training")
    others = [judge for judge in OTHERS if judge in case["methods"].get(case["main"], {})]
    columns = ("method", "win rate ± se", "of the limit", "of the ceiling", "exact optimum")
    columns += (f"{main} ahead, points (95 %)",)
    columns += tuple(f"{OTHERS[j]} | {main} ahead, points (95 %)" for j in others)
    lines = [
        f"**{case['world']}, {case['procedure']}, {case['split']} prompts "
        f"({case['prompts']}), KL {case['kl']:g}**: limit {case['limit']:.3f}, {most}",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * (len(columns) + len(others)) + "|",
    ]
    for name in sorted(known, key=lambda name: -known[name]["win"]):
        aimed = case["methods"][name].get("aim")
        cells = [
            titles.get(name, name),
            _won(known[name]),
            f"{fraction(case, name):.2f}",
            f"{fraction(case, name, 'ceiling'):.2f}",
            f"{aimed:.3f}" if aimed is not None else "–",
            _ahead(case, name, "training"),
        ]
        for judge in others:
            cells += [_won(case["methods"][name][judge]), _ahead(case, name, judge)]
        lines.append("| " + " | ".join(cells) + " |")
    missing = [titles.get(n, n) for n in case["methods"] if n not in known]
    return lines + ([f"\nNo run near this KL: {', '.join(missing)}."] if missing else []) + [""]


def _won(kept: Mapping[str, float]) -> str:
    return f"{kept['win']:.3f} ± {kept['se']:.3f}"


def _ahead(case: Mapping[str, Any], name: str, judge: str) -> str:
    if "ahead" not in case["methods"][name][judge]:
        return "–"
    return points_of(case, name, judge).replace(" points", "")


def seeds_table(result: Mapping[str, Any]) -> list[str]:
    """Win rates of the same runs at other seeds, in Markdown."""
    records = result.get("seeds", [])
    if not records:
        return []
    lines = ["**Seeds** of adapter and batches, win rate by the reward trained on", ""]
    lines += ["| setting | seed | method | win rate ± se | optimal ahead, points (95 %) |"]
    lines += ["|---|---|---|---|---|"]
    for record in records:
        where = f"{record['world']}, {record['procedure']}, {record['split']}, KL {record['kl']:g}"
        for name, kept in _read(record, "training").items():
            title = result["titles"].get(name, name)
            cells = (where, str(record["seed"]), title, _won(kept))
            lines.append("| " + " | ".join((*cells, _ahead(record, name, "training"))) + " |")
    return [*lines, ""]


def write_tables(result: Mapping[str, Any], path: Path, heading: Sequence[str]) -> None:
    """Every setting, as Markdown."""
    cases = [line for case in result["cases"] for line in table(case, result["titles"])]
    text = text_shown.tables(result["text"]) if "text" in result else []
    path.write_text(
        "\n".join([*heading, "", *cases, *seeds_table(result), *text]), encoding="utf-8"
    )


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Figures, and tables.md with every number."""
    from benchmarks.frontier.figures import draw_all

    heading = ("# Every method in every setting", "", "Made from `result.json`.")
    write_tables(result, folder / "tables.md", heading)
    draw_all(result, folder)
    if "text" in result:
        text_shown.draw(result["text"], folder)
