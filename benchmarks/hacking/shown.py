"""The claim's lines of the table, from `result.json` alone: one for each kind of exploit.

Which comparisons a line makes is fixed: calibrated and the optimal transform, one answer and
best-of-4, against raw reward and reward normalised per prompt; the win rate that is left, and what
the exploit took of it; in every world, at the exact optima and trained. A line holds where none of
them is behind, its 95 % interval below 0.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.hacking.figures import ENDS, SHORT, draw_null, draw_sweep
from benchmarks.reading import Row

__all__ = ["Part", "Seen", "draw", "kinds", "rows", "seen"]

RARE, COMMON = (0.02, 10.0), (0.2, 1.0)
"""Share and size of the planted exploits that get a line."""
OURS = ("identity", "optimal")
RIVALS = ("raw", "normalised")
MADE_FOR = {"identity": "plain", "optimal": "best-of-4"}
"""How each is decoded in a line; every combination is counted."""
DECODINGS = {"plain": "one answer", "best-of-4": "best-of-4"}


@dataclasses.dataclass(frozen=True)
class Part:
    """Methods compared in one place."""

    label: str
    """World, and whether exact optimum or trained."""
    methods: Mapping[str, Any]
    """Entries by method."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """One comparison."""

    part: str
    method: str
    decoding: str
    rival: str
    what: str
    """`minus`: the win rate that is left; `spared`: what the exploit takes less."""
    found: Sequence[float]
    """Value, low, high."""

    def __str__(self) -> str:
        what = "win rate over" if self.what == "minus" else "taken less than from"
        where = f"{SHORT[self.method]}, {DECODINGS[self.decoding]}, {self.part}"
        return f"{points(self.found)} {what} {SHORT[self.rival]} ({where})"


def rows(result: Mapping[str, Any]) -> list[Row]:
    """A line for each kind of exploit that was measured."""
    return [_row(kind, parts, result["about"]["kl"]) for kind, parts in kinds(result).items()]


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """`hacking-null-model.png`: the real exploit; `hacking-planted.png`: when it matters."""
    if null := result.get("null_model"):
        draw_null(null, folder / "hacking-null-model.png")
    worlds = {name: world for name, world in result["worlds"].items() if world.get("sweep")}
    if worlds:
        draw_sweep(worlds, folder / "hacking-planted.png")


def kinds(result: Mapping[str, Any]) -> dict[str, list[Part]]:
    """Everything compared, by kind of exploit."""
    found: dict[str, list[Part]] = {}
    if null := result.get("null_model"):
        name = "AlpacaEval's judge"
        exact = Part(f"{name}, exact optimum", null["ideal"][str(result["about"]["kl"])])
        found["a real exploit, the null model"] = [exact, *_trained(name, null["trained"])]
    worlds = {ENDS.get(str(name), str(name)): one for name, one in result["worlds"].items()}
    for title, (share, size) in {"rare huge": RARE, "common small": COMMON}.items():
        parts = [
            Part(f"{name}, exact optimum", row["methods"])
            for name, world in worlds.items()
            for row in world["sweep"]
            if (row["share"], row["size"]) == (share, size)
        ]
        found[f"a {title} bonus (+{size:g} sd on {100 * share:g} % of responses)"] = parts
    found["length (+1 sd)"] = _cases(worlds, ["length"])
    found["a keyword (rare, +3 sd; common, +1 sd)"] = _cases(worlds, ["rare word", "common word"])
    if heads := result.get("heads"):
        some = {f"AlpacaEval answers, {name}": heads[name] for name in KINDS if name in heads}
        exact = [Part(f"{name}, exact optimum", one["ideal"]) for name, one in some.items()]
        runs = [
            part
            for name, one in some.items()
            for part in _trained(f"{name}, first of {heads['replicates']}", one["trained"])
        ]
        found["a corrupted head (40 % of labels flipped; weights disturbed)"] = exact + runs
    return {kind: parts for kind, parts in found.items() if parts}


KINDS = ("flipped head", "disturbed head")


def _cases(worlds: Mapping[str, Any], names: Sequence[str]) -> list[Part]:
    found = [
        (f"{title}{'' if len(names) == 1 else ', ' + name}", world["cases"][name])
        for name in names
        for title, world in worlds.items()
        if name in world["cases"]
    ]
    exact = [Part(f"{title}, exact optimum", one["ideal"]) for title, one in found]
    return exact + [part for title, one in found for part in _trained(title, one["trained"])]


def _trained(title: str, some: Sequence[Mapping[str, Any]]) -> list[Part]:
    held = {"train": "", "held-out": " on new prompts"}
    return [
        Part(f"{title}, trained{held[row['split']]}, KL {row['kl']:g}", row["methods"])
        for row in some
    ]


def seen(part: Part) -> Iterator[Seen]:
    """Every comparison in one place; those of runs that were not made are missing."""
    for method in OURS:
        for what in ("minus", "spared"):
            for rival, found in part.methods.get(method, {}).get(what, {}).items():
                for decoding in DECODINGS:
                    yield Seen(part.label, method, decoding, rival, what, found[decoding])


def _row(kind: str, parts: Sequence[Part], kl: float) -> Row:
    every = [one for part in parts for one in seen(part)]
    ahead = [one for one in every if one.found[1] > 0]
    behind = [one for one in every if one.found[2] < 0]
    runs = [part for part in parts if "trained" in part.label][:1]
    text = [_spelled(part) for part in (parts[0], *runs)]
    text.append(f"of {len(every)} comparisons ahead in {len(ahead)}, behind in {len(behind)}")
    raw = ", ".join(
        f"{DECODINGS[key]} {_win(parts[0].methods, 'raw', key)}" for key in MADE_FOR.values()
    )
    return Row(
        f"calibrated and optimal Φ withstand {kind} better than raw reward, KL {kl:g}",
        "; ".join(text),
        f"RL on the raw reward: {raw}",
        False if behind else True if len(ahead) == len(every) else None,
    )


def _spelled(part: Part) -> str:
    """Over raw reward, each method at the decoding that it is made for; and what is spared."""
    texts = []
    for method, decoding in MADE_FOR.items():
        found = part.methods.get(method, {})
        if "raw" in found.get("minus", {}):
            text = (
                f"{SHORT[method]}, {DECODINGS[decoding]} {points(found['minus']['raw'][decoding])}"
            )
            if "raw" in found.get("spared", {}):
                text += f", the exploit takes {points(found['spared']['raw'][decoding])} less"
            texts.append(text)
    return f"{part.label}: {'; '.join(texts) or 'not reached'}"


def points(found: Sequence[float]) -> str:
    """A difference of win rates and its 95 % interval, in points.

    Example:
        >>> points([0.1203, 0.1128, 0.1277])
        '+12.0 (11.3 to 12.8)'
    """
    value, low, high = (100 * number for number in found)
    return f"{value:+.1f} ({low:.1f} to {high:.1f})".replace("-", "−")


def _win(methods: Mapping[str, Any], name: str, decoding: str) -> str:
    if name not in methods:
        return "not reached"
    return f"{methods[name]['win_rate'][decoding]['intended'][0]:.3f}"
