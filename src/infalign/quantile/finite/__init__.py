"""The finite world: what is left of a win rate when K rollouts calibrate, and no more.

`calibrated` answers the questions; `worlds` are the places where K rollouts may have fallen,
`contest` plays a policy known piece by piece, `portable` makes the same draws everywhere.
"""

from infalign.quantile.finite.calibrated import (
    finite_estimate,
    finite_frontier,
    finite_win_rate,
    largest_kl,
    rollouts_enough,
)

__all__ = [
    "finite_estimate",
    "finite_frontier",
    "finite_win_rate",
    "largest_kl",
    "rollouts_enough",
]
