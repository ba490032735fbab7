"""Which series has which colour, dash and marker: the same one in every figure of a report.

The hues are told apart under the common colour-vision deficiencies, and no series is told by hue
alone: dash pattern and marker differ as well. Figures are drawn in the light theme's colours;
the page replaces each by a CSS variable of the same role, so that they follow the dark theme.
"""

import dataclasses
from collections.abc import Sequence

from infalign.report.record import Act

__all__ = ["DARK", "LIGHT", "Palette", "Series"]

LIGHT = {
    "ink": "#1b2430",
    "muted": "#5b6675",
    "grid": "#e2e6eb",
    "card": "#fefefe",
    "s1": "#0068a8",
    "s2": "#c94f00",
    "s3": "#00805c",
    "s4": "#a83f86",
    "s5": "#8a6500",
    "s6": "#4b56b8",
}
DARK = {
    "ink": "#e8edf3",
    "muted": "#a3afbd",
    "grid": "#313b47",
    "card": "#171d25",
    "s1": "#5cb8f5",
    "s2": "#ff9455",
    "s3": "#35cfa0",
    "s4": "#ec97cc",
    "s5": "#e8bf4a",
    "s6": "#a9b1ff",
}

_DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.8)), (0, (9, 3)), (0, (3, 1.5)))
_MARKERS = "osD^vP"


@dataclasses.dataclass(frozen=True)
class Series:
    """How one series is drawn."""

    role: str
    """`s1` … `s6`, or `muted` for the reference: the CSS variable's name."""
    dash: object
    """Matplotlib line style."""
    marker: str
    """Matplotlib marker."""

    @property
    def colour(self) -> str:
        """In the light theme."""
        return LIGHT[self.role]


class Palette:
    """Names of transforms and policies → how they are drawn.

    A policy has the colour of the transform it was trained on; where several share a transform,
    or the colours run out, dash and marker tell them apart. Treatments are `s1` and baselines `s2`
    in every act; the others follow in the order in which they appear.
    """

    def __init__(self, acts: Sequence[Act]) -> None:
        measured = [m for act in acts for f in act.frontiers for m in f.measured]
        trained_on = {m.policy: m.transform for m in measured}
        slots: dict[str, int] = {}
        for act in acts:
            for slot, policy in enumerate((act.treatment, act.baseline)):
                if policy:
                    slots.setdefault(trained_on.get(policy, policy), slot)
        for name in _names(acts):
            key = trained_on.get(name, name)
            free = [i for i in range(2, 2 + len(slots) + 1) if i not in slots.values()]
            slots.setdefault(key, free[0])
        self._slots, self._trained_on = slots, trained_on
        alike: dict[int, list[str]] = {}
        for policy, transform in trained_on.items():
            alike.setdefault(slots[transform] % 6, []).append(policy)
        self._turn = {policy: i for same in alike.values() for i, policy in enumerate(same)}

    def __getitem__(self, name: str) -> Series:
        if name.lower() in ("reference", "base", "ref"):
            return Series("muted", "-", "x")
        slot = self._slots.get(self._trained_on.get(name, name), 0)
        look = (slot + self._turn.get(name, slot // 6)) % 6
        return Series(f"s{slot % 6 + 1}", _DASHES[look], _MARKERS[look])


def _names(acts: Sequence[Act]) -> list[str]:
    names = []
    for act in acts:
        for frontier in act.frontiers:
            names += [curve.transform for curve in frontier.predictions]
            names += [measured.policy for measured in frontier.measured]
        names += [row.transform for row in act.ideal]
        names += [value.policy for c in act.comparisons for value in c.win_rates]
        names += [curve.policy for curve in (*act.training, *act.win_rate_by_n)]
        names += [answer.policy for pair in act.answers for answer in pair.answers]
    return [name for name in names if name.lower() not in ("reference", "base", "ref")]
