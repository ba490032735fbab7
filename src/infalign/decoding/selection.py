"""Selection on text: draw candidates, score them, answer with the one the procedure picks.

Candidates that cannot change the answer are not drawn: a random count is drawn before any of them,
rewind-and-repeat stops at the first that passes, and where rewards have a known maximum (pass/fail)
best-of-N stops as soon as one has it. The answer's law is the same as with all N; the budget is
what was drawn.
"""

import dataclasses
import math
from typing import final

import numpy as np
from jaxtyping import Float

from infalign.decoding.counts import refuse_count
from infalign.decoding.text_procedure import Decoded, Draw, Score, Scored, Steps, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.procedures import Procedure, RankProcedure

__all__ = ["Selection", "pick", "pick_early", "refuse_rewards"]


@final
@dataclasses.dataclass(frozen=True)
class Selection(TextProcedure):
    """A procedure on [0,1], on text.

    A rank procedure sees only the order of the candidates, so rewards serve as well as quantiles,
    and better: an empirical quantile ties all candidates that beat every reference rollout.

    Args:
        procedure: picks the answer.
        at_once: candidates drawn at a time, ≥ 1. None: one where that may save some, else all.
        minimum: the smallest reward there is, where one is known; for rank procedures.
        maximum: the largest.

    Raises:
        ValueError: an `at_once` that is not a count; bounds that are not finite or not in order,
            or given to a procedure that looks at quantiles.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> Selection(BestOfN(16), at_once=4, maximum=1.0).most  # stops at the first that passes
        16
    """

    procedure: Procedure
    """Picks the answer."""
    at_once: int | None = None
    """Candidates drawn at a time."""
    minimum: float | None = None
    """The smallest reward there is."""
    maximum: float | None = None
    """The largest reward there is."""

    def __post_init__(self) -> None:
        if self.at_once is not None:
            refuse_count(self.at_once, "at_once", self.procedure.name)
        if not self._has_bounds:
            return
        if not isinstance(self.procedure, RankProcedure):
            raise ValueError(
                f"a smallest or largest reward came for {self.procedure.name}, which looks at "
                "quantiles and cannot stop by it; leave `minimum` and `maximum` out."
            )
        given = [bound for bound in (self.minimum, self.maximum) if bound is not None]
        if not all(map(math.isfinite, given)) or (len(given) == 2 and given[0] >= given[1]):
            raise ValueError(
                f"minimum is {self.minimum} and maximum {self.maximum}; finite numbers are needed, "
                "the minimum below the maximum, or None where none is known."
            )

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
        procedure = self.procedure.realised(rng)
        n = procedure.candidates
        stride = self.at_once or (1 if procedure.is_sequential or self._has_bounds else n)
        candidates: list[Response] = []
        seen = Scored(np.empty(0))
        index = None
        while index is None:
            candidates += (yield Draw(min(stride, n - len(candidates))))[0]
            if not self.needs_reward:
                return Decoded(prompt.id, candidates[0].text, 0, tuple(candidates), (math.nan,))
            fresh = candidates[len(seen.rewards) :]
            scored = yield Score(tuple(response.text for response in fresh))
            self._refuse(scored.rewards, prompt, len(seen.rewards))
            seen = _both(seen, scored)
            scores = seen.quantiles if self.needs_calibration else seen.rewards
            index = pick_early(procedure, np.asarray(scores), rng, self._bounds)
        return Decoded(
            prompt.id,
            candidates[index].text,
            index,
            tuple(candidates),
            tuple(map(float, seen.rewards)),
            quantiles=None if seen.quantiles is None else tuple(map(float, seen.quantiles)),
        )

    @property
    def _has_bounds(self) -> bool:
        return self.minimum is not None or self.maximum is not None

    @property
    def _bounds(self) -> tuple[float, float]:
        return (
            -math.inf if self.minimum is None else self.minimum,
            math.inf if self.maximum is None else self.maximum,
        )

    def _refuse(self, rewards: Float[np.ndarray, "K"], prompt: Prompt, before: int) -> None:
        refuse_rewards(rewards, prompt, before)
        outside = np.flatnonzero((rewards < self._bounds[0]) | (rewards > self._bounds[1]))
        if len(outside):
            raise ValueError(
                f"the reward of candidate {before + outside[0]} to prompt {prompt.id!r} is "
                f"{rewards[outside[0]]}, outside of what was said to be possible: minimum "
                f"{self.minimum}, maximum {self.maximum}. Give the reward's true bounds, or none."
            )


def _both(first: Scored, second: Scored) -> Scored:
    """What the reward said in two goes."""
    if not len(first.rewards):
        return second
    quantiles = None
    if first.quantiles is not None and second.quantiles is not None:
        quantiles = np.concatenate([first.quantiles, second.quantiles])
    return Scored(np.concatenate([first.rewards, second.rewards]), quantiles)


def pick(procedure: Procedure, scores: Float[np.ndarray, "N"], rng: np.random.Generator) -> int:
    """The procedure's pick; a shuffle first makes equals equally likely, wherever they stand."""
    shuffled = rng.permutation(len(scores))
    return int(shuffled[int(procedure.select(scores[shuffled], rng))])


def pick_early(
    procedure: Procedure,
    scores: Float[np.ndarray, "k"],
    rng: np.random.Generator,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> int | None:
    """As :func:`pick`, among the first candidates; None where they do not settle it.

    The shuffle changes no law: candidates are independent and of one law, whatever their order.
    """
    shuffled = rng.permutation(len(scores))
    place = procedure.select_early(scores[shuffled], rng, bounds=bounds)
    return None if place is None else int(shuffled[place])


def refuse_rewards(rewards: Float[np.ndarray, "N"], prompt: Prompt, before: int = 0) -> None:
    """Refuse to choose by what is no number.

    Args:
        rewards: of candidates to `prompt`.
        prompt: named in the message.
        before: how many candidates came before these.

    Raises:
        ValueError: naming the prompt and the candidate.
    """
    bad = np.flatnonzero(~np.isfinite(rewards))
    if len(bad):
        raise ValueError(
            f"the reward of candidate {before + bad[0]} to prompt {prompt.id!r} is "
            f"{rewards[bad[0]]}; candidates cannot be ranked by it. Repair the reward."
        )
