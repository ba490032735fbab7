"""Series keep their look through a report, and can be told apart in both themes."""

import itertools

from infalign.report import Act, Checkpoint, Estimate, Frontier, Measured
from infalign.report.figures.palette import DARK, LIGHT, Palette


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_readable_on_the_card_in_both_themes():
    for theme in (LIGHT, DARK):
        # WCAG: 4.5 for text, and every series is held to that too (3 would do for lines).
        for role in ("ink", "muted", "s1", "s2", "s3", "s4", "s5", "s6"):
            assert _contrast(theme[role], theme["card"]) >= 4.5, role
    assert len(set(LIGHT.values())) == len(LIGHT)


def _act(policies: dict[str, str], treatment: str = "", baseline: str = "") -> Act:
    point = (Checkpoint(Estimate(0.5), Estimate(0.7)),)
    measured = tuple(Measured(policy, key, point) for policy, key in policies.items())
    frontiers = (Frontier("train", measured=measured),)
    return Act("a", treatment=treatment, baseline=baseline, frontiers=frontiers)


def test_treatment_and_baseline_look_the_same_in_every_act():
    acts = [_act({"x": "log", "i1": "exp", "r1": "raw"}, "i1", "r1")]
    acts += [_act({"r2": "raw", "i2": "optimal"}, "i2", "r2")]
    palette = Palette(acts)
    assert palette["i1"].role == palette["i2"].role == palette["exp"].role == "s1"
    assert palette["r1"].role == palette["r2"].role == palette["raw"].role == "s2"
    assert palette["x"].role not in ("s1", "s2")
    assert palette["reference"].role == "muted"


def test_no_two_policies_share_colour_and_marker():
    policies = {f"p{i}": f"t{i}" for i in range(10)} | {"q": "t0", "r": "t0"}
    palette = Palette([_act(policies, "p0", "p1")])
    looks = [palette[policy] for policy in policies]
    for one, other in itertools.combinations(looks, 2):
        assert (one.role, one.marker) != (other.role, other.marker)
    assert palette["q"].role == palette["p0"].role
