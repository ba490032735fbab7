"""Portable draws: the same random numbers in Python and in a browser, without any generator.

A prediction that a person sees on a page must be the one that Python printed. So the draws behind
it come from a hash of their place, in 32-bit arithmetic that every language has.

The hash is lowbias32 (Chris Wellons), on unsigned 32-bit integers x with wrap-around:

    x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16

In JavaScript `x *= m` is `x = Math.imul(x, m)` and every shift is `>>>`. The number at (row,
column) of a seed is (h + ½)/2³² with h = hash(hash(column) ^ hash(row + hash(seed))), where `+` is
modulo 2³² and h is read as unsigned (`>>> 0`).
"""

import numpy as np
from jaxtyping import Float, UInt32

__all__ = ["hashed", "portable_gaps", "portable_uniforms"]


def hashed(x: UInt32[np.ndarray, "..."]) -> UInt32[np.ndarray, "..."]:
    """lowbias32: a bijection of 32-bit integers that scatters neighbours.

    Example:
        >>> hashed(np.array([0, 1, 2], dtype=np.uint32)).tolist()
        [0, 1753845952, 3507691905]
    """
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def portable_uniforms(rows: int, columns: int, seed: int = 1) -> Float[np.ndarray, "D M"]:
    """Uniforms in (0,1), as good as independent; a larger table begins with the smaller.

    Args:
        rows: how many rows.
        columns: how many in each.
        seed: 0 … 2³² − 1; another seed, other numbers.

    Example:
        >>> portable_uniforms(2, 3).round(6).tolist()
        [[0.140634, 0.190114, 0.969542], [0.186336, 0.079218, 0.705196]]
    """
    of_seed = hashed(np.array([seed], dtype=np.uint32))
    of_row = hashed(np.arange(rows, dtype=np.uint32) + of_seed)
    # Not column + of_row: rows that hash to neighbours would be one row, shifted.
    of_column = hashed(np.arange(columns, dtype=np.uint32))
    return (hashed(of_column ^ of_row[:, None]) + 0.5) / 2.0**32


def portable_gaps(draws: int, k: int, seed: int = 1) -> Float[np.ndarray, "D K+1"]:
    """The k + 1 gaps that k sorted uniforms leave on [0,1], lowest first: rows sum to 1.

    Gaps are exponentials over their sum, −log v_i / Σ_j −log v_j with v the portable uniforms: no
    sorting, and no gap loses its digits.

    Example:
        >>> gaps = portable_gaps(draws=1000, k=3)
        >>> bool(np.allclose(gaps.sum(axis=1), 1))
        True
        >>> gaps.mean(axis=0).round(2).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    steps = -np.log(portable_uniforms(draws, k + 1, seed))
    return steps / steps.sum(axis=1, keepdims=True)
