"""Divergences by name, and those that cannot combine policies."""

import re
import unicodedata
from typing import NoReturn

from infalign.decoding.combining.divergence import Divergence
from infalign.decoding.combining.divergences import Alpha, JensenShannon, ReverseKL

__all__ = ["divergence_of"]

NAMED = {"reverse_kl": ReverseKL(), "forward_kl": Alpha(1.0), "jsd": JensenShannon()}
REFUSED = {
    r"tvd?|(total)?variation(al)?(distance)?": "total variation",
    r"(pearsons?)?(chi|x)(2|sq|squared?)(divergence|distance)?|pearson": "the χ² divergence",
}
"""What spellings mean, letters and digits alone → what it is."""


def divergence_of(wanted: str | float | Divergence) -> Divergence:
    """By name, or by α.

    Raises:
        ValueError: a divergence that keeps no trace of the reward where it is low, or an unknown
            name.
    """
    if isinstance(wanted, Divergence):
        return wanted
    if not isinstance(wanted, str):
        return Alpha(wanted)
    plain = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", wanted).lower().replace("χ", "chi"))
    for spellings, meant in REFUSED.items():
        if re.fullmatch(spellings, plain):
            _refuse(meant)
    known = {name.replace("_", ""): divergence for name, divergence in NAMED.items()}
    if plain not in known:
        raise ValueError(
            f"divergence {wanted!r} is not known; there are {', '.join(map(repr, NAMED))}, and "
            "numbers 0 < alpha < 1 for α-divergences."
        )
    return known[plain]


def _refuse(meant: str) -> NoReturn:
    raise ValueError(
        f"{meant} cannot combine policies: its f′ stays finite at 0 (it is no barrier), so a "
        "policy may drop responses altogether and no longer tells their rewards; the optimum for "
        "a weighted reward cannot be read off. Use 'reverse_kl', 'forward_kl', 'jsd', or a number "
        "0 < alpha < 1, as the policies were trained with."
    )
