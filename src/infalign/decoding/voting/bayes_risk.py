"""Minimum Bayes risk: sample N, answer with the one that agrees most with all of them."""

import dataclasses
from typing import final

import numpy as np

from infalign.decoding.counts import refuse_candidates_count
from infalign.decoding.selection import refuse_rewards
from infalign.decoding.text_procedure import Decoded, Draw, Score, Scored, Steps, TextProcedure
from infalign.decoding.voting.choosing import agreement, heaviest
from infalign.decoding.voting.utilities import Utility, utility_from_name
from infalign.decoding.voting.weighted import tilt_weights
from infalign.policies.alignment import warn_of_second_tilt
from infalign.prompts import Prompt
from infalign.protocols import Reward, Sampler
from infalign.quantile.transforms import refuse_beta

__all__ = ["MinimumBayesRisk"]


@final
@dataclasses.dataclass(frozen=True)
class MinimumBayesRisk(TextProcedure):
    """Sample N, answer arg max over y_i of Σ_j w_j·utility(y_i, y_j).

    Without β every w is 1 and no reward is needed; with β, w = softmax(r/β), and the expected
    utility is that under the tilt. It is for answers that can be right in part, where
    :class:`.MajorityVote` would find no two alike; with the utility 1[equal] it is majority vote.

    Args:
        n: N ≥ 1.
        utility: one of `UTILITY_NAMES`, or any :class:`.Utility`, such as `Pairwise(function)`.
        beta: β > 0 of the weights, in the reward's unit; None: equal weights.

    Raises:
        ValueError: an N that is not a count, a β that is not positive, or an unknown utility.
        ImportError: a utility whose library is not installed.

    Reference:
        Minimum Bayes-Risk Decoding for Statistical Machine Translation (HLT-NAACL 2004).

    Example:
        >>> MinimumBayesRisk(8, utility="exact_match").name
        'mbr-of-8(exact match)'
    """

    n: int
    """N."""
    utility: Utility | str = "rouge_l"
    """Worth of an answer if another is right."""
    beta: float | None = None
    """β of the weights."""

    def __post_init__(self) -> None:
        refuse_candidates_count(self.n, "minimum Bayes risk")
        if self.beta is not None:
            refuse_beta(self.beta)
        if isinstance(self.utility, str):
            utility_from_name(self.utility)

    @property
    def name(self) -> str:
        weighted = "" if self.beta is None else f", β={self.beta:g}"
        return f"mbr-of-{self.n}({self.compares_by.name}{weighted})"

    @property
    def most(self) -> int:
        return self.n

    @property
    def needs_reward(self) -> bool:
        return self.beta is not None

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        """Warn where the policy was aligned by the very reward that weighs its samples."""
        if self.beta is not None and reward is not None:
            warn_of_second_tilt(policy, reward.name, None, self.beta, "minimum Bayes risk")

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        candidates = (yield Draw(self.n))[0]
        texts = [response.text for response in candidates]
        weights, scored = np.ones(self.n), Scored(np.full(self.n, np.nan))
        if self.beta is not None:
            scored = yield Score(tuple(texts))
            refuse_rewards(scored.rewards, prompt)
            weights = tilt_weights(scored.rewards, self.beta)
        worth = agreement(texts, weights, self.compares_by)
        index = heaviest(worth, weights, rng)
        return Decoded(
            prompt.id,
            texts[index],
            index,
            tuple(candidates),
            tuple(map(float, scored.rewards)),
            quantiles=None if scored.quantiles is None else tuple(map(float, scored.quantiles)),
            details={"agreement": [float(value) for value in worth]},
        )

    @property
    def compares_by(self) -> Utility:
        """The utility itself, where it was given by name."""
        return utility_from_name(self.utility) if isinstance(self.utility, str) else self.utility
