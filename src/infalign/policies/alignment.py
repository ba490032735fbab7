"""What a policy was aligned to: by which reward, how strongly; and twice by the same."""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import final

from infalign.protocols import Sampler
from infalign.quantile.transforms import Transform, refuse_beta

__all__ = [
    "Alignment",
    "alignment_of_product",
    "compose_betas",
    "tilted_alignment",
    "warn_of_second_tilt",
]

_NONE = 1e-9
"""1/β below which a policy was not aligned at all."""


@final
@dataclasses.dataclass(frozen=True)
class Alignment:
    """π ∝ π_ref·exp(Φ/β): what a policy carries as `aligned`, for those who would tilt it again.

    Args:
        reward: its name.
        beta: KL coefficient. > 0.
        transform: Φ of the reward's quantile; None where Φ is the reward itself.
        also: by what else it was aligned; None: by nothing.

    Raises:
        ValueError: β that is not positive and finite.

    Example:
        >>> Alignment("helpfulness", 0.5).beta
        0.5
    """

    reward: str
    """Name of the reward."""
    beta: float
    """KL coefficient of the training. > 0."""
    transform: Transform | None = None
    """Of the calibrated reward; None: the reward was not calibrated."""
    also: "Alignment | None" = None
    """The next of several, each by another reward or transform."""

    def __post_init__(self) -> None:
        refuse_beta(self.beta)

    def __iter__(self) -> Iterator["Alignment"]:
        """Itself, and what else there is."""
        yield self
        yield from self.also or ()

    def after(self, earlier: "Alignment | None") -> "Alignment":
        """Of a policy that carried `earlier` and was then aligned by this.

        Example:
            >>> Alignment("brief", 1.0).after(Alignment("brief", 1.0)).beta
            0.5
            >>> [a.reward for a in Alignment("brief", 1.0).after(Alignment("kind", 1.0))]
            ['kind', 'brief']
        """
        if earlier is None:
            return self
        if (earlier.reward, earlier.transform) == (self.reward, self.transform):
            return dataclasses.replace(earlier, beta=compose_betas(earlier.beta, self.beta))
        return dataclasses.replace(earlier, also=self.after(earlier.also))


def tilted_alignment(
    earlier: Alignment | None, alignment: Alignment | None, beta: float
) -> Alignment | None:
    """The alignment of a policy that carried `earlier` and was then tilted at β.

    Args:
        earlier: of the policy before.
        alignment: names what it was tilted by; None: nobody said.
        beta: of the tilt.

    Raises:
        ValueError: `alignment` says another β.
    """
    if alignment is None:
        return earlier
    if alignment.beta != beta:
        raise ValueError(
            f"a tilt at β = {beta:g} came with an alignment at β = {alignment.beta:g}; they "
            "are to be the same."
        )
    return alignment.after(earlier)


def compose_betas(first: float, second: float) -> float:
    """β of two tilts by the same Φ, one after the other: 1/β = 1/β₁ + 1/β₂.

    Example:
        >>> compose_betas(1.0, 1.0)
        0.5
    """
    refuse_beta(first)
    refuse_beta(second)
    return 1 / (1 / first + 1 / second)


def alignment_of_product(
    alignments: Sequence[Alignment | None], exponents: Sequence[float]
) -> Alignment | None:
    """What Π_i π_i^w_i is aligned to, if each π_i is to its own: 1/β = Σ_i w_i/β_i for each Φ.

    Args:
        alignments: of the policies; None: to nothing.
        exponents: w_i; may be negative.

    Example:
        >>> alignment_of_product([Alignment("brief", 0.5), None], [0.25, 0.75]).beta
        2.0
    """
    strengths: list[tuple[Alignment, float]] = []
    for alignment, exponent in zip(alignments, exponents, strict=True):
        for one in alignment or ():
            alone = dataclasses.replace(one, beta=1.0, also=None)
            before = sum(s for known, s in strengths if known == alone)
            strengths = [known for known in strengths if known[0] != alone]
            strengths.append((alone, before + exponent / one.beta))
    found = None
    for alone, strength in strengths:
        if strength > _NONE:
            found = dataclasses.replace(alone, beta=1 / strength).after(found)
    return found


def warn_of_second_tilt(
    policy: Sampler, reward: str, transform: Transform | None, beta: float, what: str
) -> None:
    """Warn where a policy is tilted by a reward that it was aligned by already.

    Args:
        policy: may carry `aligned`.
        reward: name of the reward.
        transform: Φ of its quantile; None: the reward itself.
        beta: of the second tilt.
        what: tilts it, such as "the chain".
    """
    for aligned in getattr(policy, "aligned", None) or ():
        if aligned.reward != reward:
            continue
        both = "under another transform, so that the two are no tilt of either kind"
        if aligned.transform == transform:
            both = f"together they are one tilt at β = {compose_betas(aligned.beta, beta):g}"
        warnings.warn(
            f"{policy.name} was aligned by {reward} at β = {aligned.beta:g}, and {what} tilts it "
            f"by the same reward again at β = {beta:g}: {both}. If that is not wanted, start from "
            "the reference.",
            UserWarning,
            stacklevel=3,
        )
