"""What a policy was aligned to: by which reward, how strongly."""

import dataclasses
from typing import final

from infalign.quantile.transforms import Transform, refuse_beta

__all__ = ["Alignment"]


@final
@dataclasses.dataclass(frozen=True)
class Alignment:
    """π ∝ π_ref·exp(Φ/β): what a policy carries as `aligned`, for those who would tilt it again.

    Args:
        reward: its name.
        beta: KL coefficient. > 0.
        transform: Φ of the reward's quantile; None where Φ is the reward itself.

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

    def __post_init__(self) -> None:
        refuse_beta(self.beta)

    @classmethod
    def checked(cls, alignment: "Alignment | None", beta: float) -> "Alignment | None":
        """The alignment of a tilt at β.

        Raises:
            ValueError: it says another β.
        """
        if alignment is not None and alignment.beta != beta:
            raise ValueError(
                f"a tilt at β = {beta:g} came with an alignment at β = {alignment.beta:g}; they "
                "are to be the same."
            )
        return alignment
