"""Selection on text: draw the candidates, score them, answer with the one the procedure picks."""

import dataclasses
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.decoding.text_procedure import Decoded, Draw, Score, Steps, TextProcedure
from infalign.prompts import Prompt
from infalign.quantile.procedures import Procedure, RankProcedure

__all__ = ["Selection", "pick", "refuse_rewards"]


@final
@dataclasses.dataclass(frozen=True)
class Selection(TextProcedure):
    """A procedure on [0,1], on text.

    A rank procedure sees only the order of the candidates, so rewards serve as well as quantiles,
    and better: an empirical quantile ties all candidates that beat every reference rollout.
    """

    procedure: Procedure
    """Picks the answer."""

    @property
    def name(self) -> str:
        return self.procedure.name

    @property
    def most(self) -> int:
        return self.procedure.candidates

    @property
    def needs_reward(self) -> bool:
        return self.most > 1

    @property
    def needs_calibration(self) -> bool:
        return self.needs_reward and not isinstance(self.procedure, RankProcedure)

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        n = self.most
        candidates = (yield Draw(n))[0]
        if not self.needs_reward:
            return Decoded(prompt.id, candidates[0].text, 0, tuple(candidates), (float("nan"),))
        scored = yield Score(tuple(response.text for response in candidates))
        refuse_rewards(scored.rewards, prompt)
        scores = scored.quantiles if self.needs_calibration else scored.rewards
        index = pick(self.procedure, scores, rng)
        quantiles = None if scored.quantiles is None else tuple(map(float, scored.quantiles))
        return Decoded(
            prompt.id,
            candidates[index].text,
            index,
            tuple(candidates),
            tuple(map(float, scored.rewards)),
            quantiles=quantiles,
        )


def pick(procedure: Procedure, scores: Float[np.ndarray, "N"], rng: np.random.Generator) -> int:
    """The procedure's pick; a shuffle first makes equals equally likely, wherever they stand."""
    shuffled = rng.permutation(len(scores))
    return int(shuffled[int(procedure.select(scores[shuffled], rng))])


def refuse_rewards(rewards: Float[np.ndarray, "N"], prompt: Prompt) -> None:
    """Refuse to choose by what is no number.

    Raises:
        ValueError: naming the prompt and the candidate.
    """
    bad = np.flatnonzero(~np.isfinite(rewards))
    if len(bad):
        raise ValueError(
            f"the reward of candidate {bad[0]} to prompt {prompt.id!r} is {rewards[bad[0]]}; "
            "candidates cannot be ranked by it. Repair the reward."
        )
