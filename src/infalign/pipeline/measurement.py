"""One policy, measured: KL and win rates of every prompt, on both sides of the split.

Numbers are kept per prompt, so that policies can be compared prompt by prompt, and at a common KL
rather than a common step: training moves along a path in KL, and two policies are only comparable
where their paths pass the same KL. Between checkpoints the win rate is read off linearly in √KL,
which is how it grows near the reference (W − ½ ≈ √(2·KL·V)).
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float

from infalign.rollouts.shards import write_atomically

__all__ = ["SPLITS", "Measurement", "Split", "at_kl", "reach", "save_arrays"]

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, Split] = ("train", "held-out")
"""`train`: fresh samples of the training prompts; `held-out`: prompts never trained on."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one checkpoint of one policy does."""

    step: int
    """Updates made when it was taken."""
    kl: dict[Split, Float[np.ndarray, "P"]]
    """KL(π‖π_ref) of each prompt, nats: exact, or Rao–Blackwellised over samples."""
    k1: dict[Split, Float[np.ndarray, "P"]]
    """The same by the mean log-ratio of the samples; equal to `kl` where that is exact."""
    wins: dict[tuple[Split, str, str], Float[np.ndarray, "P"]]
    """(split, judge, procedure) → win rate of each prompt against the reference."""

    def save(self, path: Path) -> None:
        """Write it atomically as .npz."""
        arrays = {"step": np.array(self.step)}
        arrays |= {f"kl|{split}": values for split, values in self.kl.items()}
        arrays |= {f"k1|{split}": values for split, values in self.k1.items()}
        arrays |= {"|".join(("win", *key)): values for key, values in self.wins.items()}
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        kl, k1, wins = {}, {}, {}
        with np.load(path) as arrays:
            for name in arrays.files:
                kind, *key = name.split("|")
                if kind == "kl":
                    kl[key[0]] = arrays[name]
                elif kind == "k1":
                    k1[key[0]] = arrays[name]
                elif kind == "win":
                    wins[tuple(key)] = arrays[name]
            return cls(int(arrays["step"]), kl, k1, wins)


def save_arrays(path: Path, arrays: Mapping[Any, np.ndarray]) -> None:
    """Write arrays atomically as .npz."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue(), path.parent)


def reach(path: Sequence[Measurement], split: Split) -> float:
    """The largest mean KL along a training path. Nats."""
    return max((float(m.kl[split].mean()) for m in path), default=0.0)


def at_kl(
    path: Sequence[Measurement], split: Split, judge: str, procedure: str, kl: float
) -> Float[np.ndarray, "P"] | None:
    """Win rate of each prompt where the path last passes a mean KL, linear in √KL between.

    The path starts at the reference: KL 0, win rate ½. Where it passes the KL more than once, the
    last time counts, because the policy is trained furthest then. Checkpoints that this judge has
    not judged are passed over.

    Returns:
        One number per prompt, or None where the path does not get that far.
    """
    judged = [m for m in path if (split, judge, procedure) in m.wins]
    if not judged:
        return None
    wins = [m.wins[split, judge, procedure] for m in sorted(judged, key=lambda m: m.step)]
    kls = [float(m.kl[split].mean()) for m in sorted(judged, key=lambda m: m.step)]
    roots = np.sqrt(np.maximum([0.0, *kls], 0))
    wins = [np.full_like(wins[0], 0.5), *wins]
    for end in range(len(wins) - 1, 0, -1):
        low, high = sorted(roots[end - 1 : end + 1])
        if low <= np.sqrt(kl) * (1 + 1e-9) and np.sqrt(kl) <= high * (1 + 1e-9):
            step = roots[end] - roots[end - 1]
            share = 1.0 if step == 0 else np.clip((np.sqrt(kl) - roots[end - 1]) / step, 0, 1)
            return wins[end - 1] + share * (wins[end] - wins[end - 1])
    return None
