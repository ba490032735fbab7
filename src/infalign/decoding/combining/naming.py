"""Divergences by name, and those that cannot combine policies."""

from infalign.decoding.combining.divergences import Alpha, Divergence, JensenShannon, ReverseKL

__all__ = ["divergence_of"]

NAMED = {"reverse_kl": ReverseKL(), "forward_kl": Alpha(1.0), "jsd": JensenShannon()}
REFUSED = {
    "tv": "total variation",
    "total_variation": "total variation",
    "chi2": "the χ² divergence",
    "chi_squared": "the χ² divergence",
}


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
    key = wanted.lower().replace("-", "_")
    if key in REFUSED:
        raise ValueError(
            f"{REFUSED[key]} cannot combine policies: its f′ stays finite at 0 (it is no barrier), "
            "so a policy may drop responses altogether and no longer tells their rewards; the "
            "optimum for a weighted reward cannot be read off. Use 'reverse_kl', 'forward_kl', "
            "'jsd', or a number 0 < alpha < 1, as the policies were trained with."
        )
    if key not in NAMED:
        raise ValueError(
            f"divergence {wanted!r} is not known; there are {', '.join(map(repr, NAMED))}, and "
            "numbers 0 < alpha < 1 for α-divergences."
        )
    return NAMED[key]
