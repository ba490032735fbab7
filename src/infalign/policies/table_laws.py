"""From next-token laws to the law over whole responses, and back.

Beginnings stand by length, then like numbers: with V tokens, token v after the beginning at place b
makes the one at b·V + 1 + v. The last places, beyond the B beginnings that have laws, are the
responses that the length cap cuts.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["laws_of_masses", "masses_of_laws"]


def masses_of_laws(laws: Float[np.ndarray, "P B V1"]) -> Float[np.ndarray, "P S"]:
    """Products along each response: of the B that end, in order, then of those the cap cuts.

    Example:
        >>> masses_of_laws(np.array([[[0.25, 0.75]]])).tolist()  # "a" or nothing, at most one
        [[0.75, 0.25]]
    """
    count, v = laws.shape[1], laws.shape[2] - 1
    reach = np.ones((len(laws), count * v + 1))
    for place in range(count):
        children = slice(place * v + 1, place * v + v + 1)
        reach[:, children] = reach[:, place, None] * laws[:, place, :v]
    ended = reach[:, :count] * laws[:, :, v]
    return np.concatenate([ended, reach[:, count:]], axis=1)


def laws_of_masses(
    masses: Float[np.ndarray, "P S"], otherwise: Float[np.ndarray, "P B V1"]
) -> Float[np.ndarray, "P B V1"]:
    """Sums over what may follow, divided; `otherwise` after beginnings that cannot occur.

    Example:
        >>> laws_of_masses(np.array([[0.75, 0.25]]), np.array([[[0.5, 0.5]]])).tolist()
        [[[0.25, 0.75]]]
    """
    count, v = otherwise.shape[1], otherwise.shape[2] - 1
    reach = np.zeros((len(masses), count * v + 1))
    reach[:, count:] = masses[:, count:]
    laws = otherwise.copy()
    for place in range(count - 1, -1, -1):
        following, ended = reach[:, place * v + 1 : place * v + v + 1], masses[:, place]
        reach[:, place] = ended + following.sum(1)
        row = np.concatenate([following, ended[:, None]], axis=1)
        known = reach[:, place] > 0
        laws[known, place] = row[known] / reach[known, place, None]
    return laws
