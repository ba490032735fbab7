"""What the experiment file chooses among: procedures, transforms, rewards."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from infalign.config.section import BY_KIND, NAME_ALONE, Section, require
from infalign.config.text_procedures import MCMC, BlockwiseBestOfN, MajorityVote, SoftBestOfN

__all__ = [
    "BestOfN",
    "CallableReward",
    "ClassifierReward",
    "EmbeddedReward",
    "ExponentialTransform",
    "IdentityProcedure",
    "IdentityTransform",
    "LogTransform",
    "MedianOfN",
    "OptimalTransform",
    "OrderStatistic",
    "Procedure",
    "Reward",
    "Transform",
    "WorstOfN",
]


@dataclass(frozen=True, kw_only=True)
class IdentityProcedure(Section):
    """One response is sampled and shown."""

    kind: Literal["identity"] = "identity"

    @property
    def candidates(self) -> int:
        """Responses sampled for one answer."""
        return 1


@dataclass(frozen=True, kw_only=True)
class _OfN(Section):
    n: int = 4
    """Responses sampled for one answer. ≥ 1."""

    def __post_init__(self) -> None:
        require(self.n >= 1, f"n is {self.n}; at least 1 response must be sampled")

    @property
    def candidates(self) -> int:
        """Responses sampled for one answer."""
        return self.n


@dataclass(frozen=True, kw_only=True)
class BestOfN(_OfN):
    """The response of highest reward is shown."""

    kind: Literal["best_of_n"] = "best_of_n"


@dataclass(frozen=True, kw_only=True)
class WorstOfN(_OfN):
    """The response of lowest reward is shown, as an adversary who tries N times would find it."""

    kind: Literal["worst_of_n"] = "worst_of_n"


@dataclass(frozen=True, kw_only=True)
class MedianOfN(_OfN):
    """The response of middle reward is shown."""

    kind: Literal["median_of_n"] = "median_of_n"


@dataclass(frozen=True, kw_only=True)
class OrderStatistic(Section):
    """The response at a random rank is shown."""

    probabilities: tuple[float, ...]
    """Of the ranks, worst first. ≥ 0, summing to 1."""
    kind: Literal["order_statistic"] = "order_statistic"

    def __post_init__(self) -> None:
        total = math.fsum(self.probabilities)
        require(
            bool(self.probabilities) and min(self.probabilities) >= 0 and abs(total - 1) < 1e-9,
            f"probabilities are {list(self.probabilities)}, with sum {total}; one for each rank is "
            "needed, none negative, with sum 1",
        )

    @property
    def candidates(self) -> int:
        """Responses sampled for one answer."""
        return len(self.probabilities)


@dataclass(frozen=True, kw_only=True)
class OptimalTransform(Section):
    """The transform that wins most for the procedure and KL, solved for."""

    kind: Literal["optimal"] = "optimal"


@dataclass(frozen=True, kw_only=True)
class IdentityTransform(Section):
    """Φ(u) = u: the calibrated reward itself, best where one response is sampled."""

    kind: Literal["identity"] = "identity"


@dataclass(frozen=True, kw_only=True)
class LogTransform(Section):
    """Φ(u) = log u."""

    kind: Literal["log"] = "log"


@dataclass(frozen=True, kw_only=True)
class ExponentialTransform(Section):
    """Φ(u) = (e^{tu} − 1)/(e^t − 1)."""

    t: float = 10.0
    """Steepness; positive for best-of-N, negative for worst-of-N. Not 0."""
    kind: Literal["exponential"] = "exponential"

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.t) and self.t != 0,
            f"t is {self.t}; a finite number other than 0 is needed. The limit t = 0 is "
            "`transform: identity`",
        )


@dataclass(frozen=True, kw_only=True)
class EmbeddedReward(Section):
    """A reward that comes with the library's assets, for film reviews."""

    name: Literal["training", "gold", "vader"] = "training"
    """`training`: a head on MiniLM; `gold`: a head on SmolLM2; `vader`: a lexicon and rules."""
    kind: Literal["embedded"] = "embedded"


@dataclass(frozen=True, kw_only=True)
class ClassifierReward(Section):
    """A Hugging Face sequence-classification model."""

    model: str
    """Folder or hub id."""
    name: str | None = None
    """In tables and the store; by default the model's last path component."""
    label: int | str | None = None
    """Whose logit is the reward; needed where the model has several labels."""
    batch_size: int = 32
    """Texts at a time. ≥ 1."""
    kind: Literal["classifier"] = "classifier"

    def __post_init__(self) -> None:
        require(bool(self.model), "model is empty; a folder or hub id is needed")
        require(self.batch_size >= 1, f"batch_size is {self.batch_size}; at least 1 is needed")


@dataclass(frozen=True, kw_only=True)
class CallableReward(Section):
    """Your own Python function: (prompts, responses "P K") → rewards "P K"."""

    function: str
    """Where it is: `module:function`."""
    name: str | None = None
    """In tables and the store; by default the function's name."""
    kind: Literal["callable"] = "callable"

    def __post_init__(self) -> None:
        module, _, function = self.function.partition(":")
        parts = [*module.split("."), *function.split(".")]
        require(
            all(part.isidentifier() for part in parts),
            f"function is {self.function!r}; `module:function` is needed, as in "
            "`my_rewards:brevity`",
        )


Procedure = Annotated[
    IdentityProcedure
    | BestOfN
    | WorstOfN
    | MedianOfN
    | OrderStatistic
    | SoftBestOfN
    | MajorityVote
    | BlockwiseBestOfN
    | MCMC,
    BY_KIND,
    NAME_ALONE,
]
Transform = Annotated[
    OptimalTransform | IdentityTransform | LogTransform | ExponentialTransform, BY_KIND, NAME_ALONE
]
Reward = Annotated[EmbeddedReward | ClassifierReward | CallableReward, BY_KIND, NAME_ALONE]
