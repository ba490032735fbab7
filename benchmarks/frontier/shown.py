"""What claim 1 tells the table, its own tables, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.frontier import text_shown
from benchmarks.reading import Row

__all__ = ["ahead", "best_rival", "draw", "found", "fraction", "rows", "table", "write_tables"]

UNTOLD = (
    "raw",
    "normalised",
    "log_sigmoid",
    "ipo",
    "dpo",
    "bonbon",
    "vbon",
    "weighted_sft",
    "raft",
)
"""Published methods that do not know the procedure."""


def rows(result: Mapping[str, Any]) -> list[Row]:
    """Best-of-4 on the trained language model, worst-of-4 on harmless prompts, and all settings."""
    lines = []
    for world, procedure, setting in (
        ("openings", "best-of-4", "best-of-4, language model with LoRA, training prompts"),
        ("harmless", "worst-of-4", "worst-of-4, harmless prompts, tables"),
    ):
        case = found(result, world, procedure, "train", 1.0)
        if case and {"optimal", "raw"} <= _read(case, "training").keys():
            lines.append(_against_raw(case, setting))
    lines += _all_settings(result)
    return lines + text_shown.rows(result["text"]) if "text" in result else lines


def _against_raw(case: Mapping[str, Any], setting: str) -> Row:
    raw = case["methods"]["raw"]["training"]
    low, high = ahead(case, "raw")
    won = case["methods"]["optimal"]["training"]["win"]
    return Row(
        f"the optimal transform wins more than raw reward at KL 1 ({setting})",
        f"{points_of(case, 'raw')}; {won:.3f}, {fraction(case, 'optimal'):.2f} of the limit",
        f"RL on the raw reward, {raw['win']:.3f}",
        holds=None if low < 0 < high else low > 0,
    )


def _all_settings(result: Mapping[str, Any]) -> list[Row]:
    compared = [case for case in result["cases"] if best_rival(case)]
    if not compared:
        return []
    rivals = [(case, best_rival(case)) for case in compared]
    ahead_of = sum(ahead(case, rival)[0] > 0 for case, rival in rivals)
    behind = sum(ahead(case, rival)[1] < 0 for case, rival in rivals)
    gaps = sorted(case["methods"][rival]["training"]["ahead"] * 100 for case, rival in rivals)
    return [
        Row(
            "it wins more than the best of the methods that do not know the procedure, over all "
            "worlds, procedures, KLs and splits",
            f"significantly more in {ahead_of}, less in {behind} of {len(rivals)} settings; "
            f"median {gaps[len(gaps) // 2]:+.1f} points",
            "the best of nine, chosen after the fact in each setting",
            holds=ahead_of > len(rivals) / 2 and behind == 0,
        )
    ]


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


def best_rival(case: Mapping[str, Any], judge: str = "training") -> str | None:
    """Of the methods that do not know the procedure; None where there is none to compare."""
    kept = _read(case, judge)
    rivals = [name for name in UNTOLD if "ahead" in kept.get(name, {})]
    return max(rivals, key=lambda name: kept[name]["win"]) if rivals else None


def table(case: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """One setting in Markdown, most wins first."""
    main, most = titles[case["main"]], f"ceiling {case['ceiling']:.3f}"
    known = _read(case, "training")
    lines = [
        f"**{case['world']}, {case['procedure']}, {case['split']} prompts "
        f"({case['prompts']}), KL {case['kl']:g}**: limit {case['limit']:.3f}, {most}",
        "",
        f"| method | win rate ± se | of the limit | of the ceiling | exact optimum | {main} ahead, "
        "points (95 %) | gold |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(known, key=lambda name: -known[name]["win"]):
        kept = case["methods"][name]
        win, aimed, gold = kept["training"], kept.get("aim"), kept.get("gold")
        cells = (
            titles.get(name, name),
            f"{win['win']:.3f} ± {win['se']:.3f}",
            f"{fraction(case, name):.2f}",
            f"{fraction(case, name, 'ceiling'):.2f}",
            f"{aimed:.3f}" if aimed is not None else "–",
            points_of(case, name).replace(" points", "") if "ahead" in win else "–",
            f"{gold['win']:.3f} ± {gold['se']:.3f}" if gold else "–",
        )
        lines.append("| " + " | ".join(cells) + " |")
    missing = [titles.get(n, n) for n in case["methods"] if n not in known]
    return lines + ([f"\nNo run near this KL: {', '.join(missing)}."] if missing else []) + [""]


def write_tables(result: Mapping[str, Any], path: Path, heading: Sequence[str]) -> None:
    """Every setting, as Markdown."""
    cases = [line for case in result["cases"] for line in table(case, result["titles"])]
    text = text_shown.tables(result["text"]) if "text" in result else []
    path.write_text("\n".join([*heading, "", *cases, *text]), encoding="utf-8")


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """Figures, and tables.md with every number."""
    from benchmarks.frontier.figures import draw_all

    heading = ("# Every method in every setting", "", "Made from `result.json`.")
    write_tables(result, folder / "tables.md", heading)
    draw_all(result, folder)
    if "text" in result:
        text_shown.draw(result["text"], folder)
