"""A transform of your own, from a function; refused where it falls."""

import dataclasses
from collections.abc import Callable
from typing import final

import numpy as np

from infalign.quantile.panels import Numbers, graded_edges, panel_rule
from infalign.quantile.transforms.transform import Transform

__all__ = ["Custom"]


@final
@dataclasses.dataclass(frozen=True)
class Custom(Transform):
    """A transform of your own, from a function.

    Args:
        function: Φ, vectorised over arrays of u in [0,1]; increasing (steps and flat pieces are
            fine), finite at u = 1, −∞ at most at u = 0.
        label: its name in figures and tables.
        jumps: quantiles at which it jumps, so that integrals are cut there.

    Raises:
        ValueError: where it falls, is not a number or not finite, saying at which u; if it is the
            same everywhere; if it does not return one number per u.

    Example:
        >>> squared = Custom(lambda u: u**2, "squared")
        >>> round(squared.tilted_kl(0.5), 4)
        0.202
        >>> Custom(lambda u: (u - 0.25) ** 2, "valley")
        Traceback (most recent call last):
        ...
        ValueError: The transform 'valley' falls from 0.0625 at u = 0 to 0 at u = 0.25; it must increase, or training would prefer responses of lower reward.
    """  # noqa: E501

    function: Callable[[np.ndarray], np.ndarray]
    """Φ."""
    label: str
    """Name."""
    jumps: tuple[float, ...] = ()
    """Where it jumps."""

    def __post_init__(self) -> None:
        if any(not 0 < jump < 1 for jump in self.jumps):
            raise ValueError(f"Jumps {self.jumps} came; quantiles between 0 and 1 are needed.")
        u = np.union1d(np.linspace(0, 1, 101), panel_rule(graded_edges(inner=64))[0])
        phi = self(u)
        if phi.shape != u.shape:
            raise ValueError(
                f"The transform {self.label!r} turned {u.shape} quantiles into {phi.shape}; it "
                "must take an array and give one number for each entry."
            )
        bad = np.isnan(phi) | np.isposinf(phi) | (np.isneginf(phi) & (u > 0))
        if bad.any():
            raise ValueError(
                f"The transform {self.label!r} is {phi[bad][0]} at u = {u[bad][0]:.6g}; a finite "
                "number is needed (−∞ at u = 0 at most)."
            )
        top = np.maximum.accumulate(phi)
        fallen = phi < top - 1e-9 * np.maximum(1.0, np.abs(top))
        if fallen.any():
            here = int(np.argmax(fallen))
            before = int(np.argmax(phi[:here] >= top[here]))
            here += int(np.argmax(np.append(np.diff(phi[here:]) >= 0, True)))  # to the valley
            raise ValueError(
                f"The transform {self.label!r} falls from {phi[before]:.6g} at u = {u[before]:.6g} "
                f"to {phi[here]:.6g} at u = {u[here]:.6g}; it must increase, or training would "
                "prefer responses of lower reward."
            )
        if phi[-1] == phi[u > 0][0]:
            raise ValueError(
                f"The transform {self.label!r} is {phi[-1]:.6g} everywhere; it rewards nothing."
            )

    @property
    def name(self) -> str:
        return self.label

    @property
    def breaks(self) -> tuple[float, ...]:
        return self.jumps

    def __call__(self, u: Numbers) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.asarray(self.function(np.asarray(u, dtype=float)), dtype=float)
