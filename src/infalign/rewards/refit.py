"""Fit the shipped reward heads again from the ratings: how they were made, and that they were.

Each head is fitted on its own part of the ratings and measured on the held-out part, which no head
is fitted to. Encoding takes the time: a minute for MiniLM, several for SmolLM2, on one core.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from infalign.assets import asset_folder, film_ratings
from infalign.assets.reviews import FilmRatings, Part
from infalign.rewards.encoders import MiniLM, SmolLM2
from infalign.rewards.heads import LinearHead, fit_ridge

__all__ = ["HEADS", "refit"]

Encoder = Callable[[Sequence[str]], np.ndarray]

HEADS: dict[str, tuple[str, Part]] = {
    "minilm-training": ("all-minilm-l6-v2", "training"),
    "smollm2-gold": ("smollm2-135m-instruct", "gold"),
    "smollm2-training": ("smollm2-135m-instruct", "training"),
}
"""Shipped head: its encoder and the part of the ratings that fits it."""


def refit(
    names: Sequence[str] = (),
    folder: str | Path | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, LinearHead]:
    """Fit heads from the ratings and report each one's held-out Pearson correlation.

    Args:
        names: keys of :data:`HEADS`; all of them by default.
        folder: where to write `<name>.json`; None writes nothing.
        limit: use only about so many snippets of each part; None uses all.
        say: receives one line per head.

    Raises:
        ValueError: unknown head.
    """
    unknown = sorted(set(names) - set(HEADS))
    if unknown:
        raise ValueError(f"no embedded head is named {unknown}; there are {sorted(HEADS)}.")
    fitted = {}
    for asset in dict.fromkeys(HEADS[name][0] for name in names or HEADS):
        encoder = _encoder(asset)
        held_out = _at_most(film_ratings("held-out"), limit)
        judged = encoder(held_out.snippets), held_out.ratings
        for name in (n for n in names or HEADS if HEADS[n][0] == asset):
            fitted[name] = _fit(name, encoder, judged, limit)
            say(f"{name}: {fitted[name].record}")
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, head in fitted.items():
            (Path(folder) / f"{name}.json").write_text(head.to_json())
    return fitted


def _fit(
    name: str, encoder: Encoder, judged: tuple[np.ndarray, np.ndarray], limit: int | None
) -> LinearHead:
    asset, part = HEADS[name]
    learned = _at_most(film_ratings(part), limit)
    head, penalty = fit_ridge(encoder(learned.snippets), learned.ratings)
    record = {
        "encoder": asset,
        "ratings": f"{part} part of vaderSentiment 3.3.2, film reviews",
        "fitted_on": len(learned.snippets),
        "penalty": penalty,
        **_quality(head(judged[0]), judged[1]),
    }
    return dataclasses.replace(head, record=record)


def _encoder(asset: str) -> Encoder:
    if asset == "all-minilm-l6-v2":
        return MiniLM(asset_folder(asset))
    return SmolLM2(asset_folder(asset))


def _at_most(ratings: FilmRatings, limit: int | None) -> FilmRatings:
    step = 1 if limit is None else max(1, len(ratings.snippets) // limit)
    spread = slice(None, None, step)  # neighbours in the file may be of one film
    return FilmRatings(ratings.snippets[spread], ratings.ratings[spread])


def _quality(predicted: np.ndarray, ratings: np.ndarray) -> dict[str, float]:
    """Pearson correlation, and how often the better-rated of two snippets scores higher."""
    gap = ratings[:, None] - ratings[None, :]
    agree = np.sign(predicted[:, None] - predicted[None, :]) == np.sign(gap)
    return {
        "held_out": len(ratings),
        "held_out_pearson": round(float(np.corrcoef(predicted, ratings)[0, 1]), 4),
        "held_out_pair_accuracy": round(float(agree[gap > 0].mean()), 4),
        "held_out_pair_accuracy_apart": round(float(agree[gap > 1].mean()), 4),
    }
