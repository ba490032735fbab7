"""Reward-weighted vote: sample N, weigh each by exp(r/β), answer what most of the weight says.

It is self-normalised importance sampling for the tilt π·exp(r/β)/Z, the target that a chain
(:mod:`infalign.decoding.mcmc`) walks to: as N grows the share of a key tends to the key's
probability under the tilt, and the answer to the tilt's mode over keys. With few samples and a
small β one sample has all the weight, and the vote is best-of-N.
"""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.decoding.counts import refuse_candidates_count
from infalign.decoding.selection import refuse_rewards
from infalign.decoding.text_procedure import Decoded, Draw, Score, Steps, TextProcedure
from infalign.decoding.voting.choosing import shares, vote
from infalign.decoding.voting.extracting import Extract, extract_from_name
from infalign.policies.alignment import warn_of_second_tilt
from infalign.prompts import Prompt
from infalign.protocols import Reward, Sampler
from infalign.quantile.transforms import refuse_beta

__all__ = ["WeightedVote", "tilt_weights"]


@final
@dataclasses.dataclass(frozen=True)
class WeightedVote(TextProcedure):
    """Sample N, weigh by exp(r/β), answer with one of those whose key has the most weight.

    Args:
        n: N ≥ 1.
        beta: β > 0, in the reward's unit. β → ∞ is majority vote, β → 0 best-of-N.
        extract: text → key, a function or one of `EXTRACT_NAMES`; None abstains.

    Raises:
        ValueError: an N that is not a count, a β that is not positive, or an unknown name.

    Reference:
        Making Language Models Better Reasoners with Step-Aware Verifier (arXiv:2206.02336), which
        weighs by a verifier's probability; here the weights are those of importance sampling.

    Example:
        >>> WeightedVote(8, beta=0.5).name
        'weighted-vote-of-8(β=0.5)'
    """

    n: int
    """N."""
    beta: float
    """β."""
    extract: Extract | str = "text"
    """Text → key."""

    def __post_init__(self) -> None:
        refuse_candidates_count(self.n, "weighted vote")
        refuse_beta(self.beta)
        if isinstance(self.extract, str):
            extract_from_name(self.extract)

    @property
    def name(self) -> str:
        return f"weighted-vote-of-{self.n}(β={self.beta:g})"

    @property
    def most(self) -> int:
        return self.n

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        """Warn where the policy was aligned by the very reward that weighs its samples."""
        if reward is not None:
            warn_of_second_tilt(policy, reward.name, None, self.beta, "the weighted vote")

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        key = extract_from_name(self.extract) if isinstance(self.extract, str) else self.extract
        candidates = (yield Draw(self.n))[0]
        scored = yield Score(tuple(response.text for response in candidates))
        refuse_rewards(scored.rewards, prompt)
        keys = [key(response.text) for response in candidates]
        weights = tilt_weights(scored.rewards, self.beta)
        index = vote(keys, weights, rng)
        votes = {str(said): share for said, share in shares(keys, weights).items()}
        return Decoded(
            prompt.id,
            candidates[index].text,
            index,
            tuple(candidates),
            tuple(map(float, scored.rewards)),
            quantiles=None if scored.quantiles is None else tuple(map(float, scored.quantiles)),
            details={"votes": votes, "effective_samples": float(1 / (weights**2).sum())},
        )


def tilt_weights(rewards: Float[np.ndarray, "N"], beta: float) -> Float[np.ndarray, "N"]:
    """softmax(r/β): what each sample of the policy counts for the tilt; sums to 1.

    Example:
        >>> tilt_weights(np.array([0.0, np.log(3)]), beta=1.0).round(3).tolist()
        [0.25, 0.75]
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    # Differences before dividing: a small β must not make ∞ of rewards that lie close together.
    weights = np.exp((rewards - rewards.max()) / beta)
    return weights / weights.sum()
