"""Which of two responses a reward prefers."""

import numpy as np
from jaxtyping import Float

__all__ = ["preferences"]


def preferences(rewards: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "P C C"]:
    """p[x, i, j]: 1 where response i has more reward than j, ½ where they tie, else 0.

    Example:
        >>> preferences(np.array([[0.0, 2.0, 2.0]]))[0].tolist()
        [[0.5, 0.0, 0.0], [1.0, 0.5, 0.5], [1.0, 0.5, 0.5]]
    """
    return (1 + np.sign(rewards[:, :, None] - rewards[:, None, :])) / 2
