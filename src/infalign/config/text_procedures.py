"""Procedures on text that the experiment file may name: what ranks of whole responses do not tell.

No theory predicts what they win; they are trained for with `training: {kind: online_decoded}`.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from infalign.config.section import NO_TRUTH, Section, is_positive, require

__all__ = [
    "MCMC",
    "BlockwiseBestOfN",
    "MajorityVote",
    "SoftBestOfN",
    "TextProcedure",
    "require_decoding_fits",
]

Count = Annotated[int, NO_TRUTH]


def _require_counts(section: Section, least: int, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        require(
            value >= least,
            f"{name} is {value}; a whole number is needed, at least {least}",
        )


@dataclass(frozen=True, kw_only=True)
class TextProcedure(Section):
    """What the procedures on text share."""

    @property
    def candidates(self) -> int:
        """Stored responses that one answer is found among; 1 where it decodes for itself."""
        return 1


@dataclass(frozen=True, kw_only=True)
class SoftBestOfN(TextProcedure):
    """One of N responses is shown, drawn with weights exp(quantile / temperature)."""

    n: Count = 4
    """Responses sampled for one answer. ≥ 1."""
    temperature: float = 0.1
    """In quantiles; best-of-N near 0. ≥ 0.005."""
    kind: Literal["soft_best_of_n"] = "soft_best_of_n"

    def __post_init__(self) -> None:
        _require_counts(self, 1, "n")
        require(
            math.isfinite(self.temperature) and self.temperature >= 0.005,
            f"temperature is {self.temperature}; a finite number, at least 0.005, is needed",
        )

    @property
    def candidates(self) -> int:
        return self.n


@dataclass(frozen=True, kw_only=True)
class MajorityVote(TextProcedure):
    """What most of N responses say is shown."""

    n: Count = 4
    """Responses sampled for one answer. ≥ 1."""
    extract: Literal["text", "last_number", "boxed"] = "text"
    """What a response says: all of it, the last number in it, or what stands in `\\boxed{…}`."""
    kind: Literal["majority_vote"] = "majority_vote"

    def __post_init__(self) -> None:
        _require_counts(self, 1, "n")

    @property
    def candidates(self) -> int:
        return self.n


@dataclass(frozen=True, kw_only=True)
class BlockwiseBestOfN(TextProcedure):
    """Every so many tokens, the best of N continuations by the reward is gone on from."""

    n: Count = 4
    """Continuations of each block. ≥ 1."""
    block: Count = 8
    """Tokens of a block. ≥ 1."""
    rollouts: Count = 0
    """Completions whose mean reward judges an unfinished text; 0: the reward of the text so far."""
    kind: Literal["blockwise_best_of_n"] = "blockwise_best_of_n"

    def __post_init__(self) -> None:
        _require_counts(self, 1, "n", "block")
        _require_counts(self, 0, "rollouts")


@dataclass(frozen=True, kw_only=True)
class MCMC(TextProcedure):
    """A chain that rewrites the end of its response, towards the policy tilted by reward / beta."""

    beta: float
    """Of the chain's target; in the reward's own unit, or the transform's. > 0."""
    transform: Literal["identity", "log"] | None = None
    """Of the reward's quantile; the target is tilted by the reward itself by default."""
    steps: Count = 16
    """Of the chain. ≥ 1."""
    kind: Literal["mcmc"] = "mcmc"

    def __post_init__(self) -> None:
        _require_counts(self, 1, "steps")
        require(is_positive(self.beta), f"beta is {self.beta}; a finite number > 0 is needed")


def require_decoding_fits(
    procedure: Any, policy: Any, transform: Any, training: Any, samples: int
) -> None:
    """Refuse a procedure on text where something else is built on ranks.

    Args:
        procedure: the experiment's section, as are policy, transform and training.
        samples: responses that a policy is measured on.

    Raises:
        ValueError: naming what does not fit, and what would.
    """
    decoded = training.kind == "online_decoded"
    n, kind = procedure.candidates, procedure.kind
    require(
        not decoded or training.samples_per_prompt > n,
        f"training.samples_per_prompt is {getattr(training, 'samples_per_prompt', 0)}, but "
        f"procedure samples {n}; what one is worth shows where it is left out: more are needed",
    )
    on_text = isinstance(procedure, TextProcedure)
    require(
        decoded or not on_text,
        f"procedure is {kind}, for which no transform is known, but training is "
        f"{training.kind}; `training: {{kind: online_decoded, beta: 0.1}}` is needed",
    )
    require(
        policy.kind == "causal_lm" or not decoded,
        f"procedure is {kind} and training online_decoded, but policy is {policy.kind}; choose "
        "`policy: causal_lm`",
    )
    if not on_text:
        return
    require(
        transform.kind == "optimal",
        f"transform is {transform.kind}, but for procedure {kind} training takes none; "
        "leave it out",
    )
    require(
        not isinstance(procedure, SoftBestOfN) or 2 * n <= samples,
        f"evaluate.samples is {samples}, but procedure samples {n} and needs as many of the "
        "reference again for quantiles; twice as many are needed",
    )
