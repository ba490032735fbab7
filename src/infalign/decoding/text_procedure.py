"""The contract: a procedure on text says what it wants to see next, and ends with an answer.

A procedure on [0,1] (:class:`infalign.quantile.procedures.Procedure`) only picks among whole
responses. On text there is more: blocks, chains, votes, trees. A :class:`TextProcedure` is written
for one prompt, as a generator that yields what it needs, a :class:`Draw` from the policy or a
:class:`Score` by the reward, and is sent the result. Who runs it brings policy and reward: in
batches over many prompts (:func:`infalign.decoding.decode`), or concurrently behind a server. The
procedure itself never waits, retries or batches.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler

__all__ = [
    "Budget",
    "Decoded",
    "Draw",
    "Ranks",
    "Score",
    "Scored",
    "Steps",
    "TextProcedure",
    "budget_of",
]


@dataclasses.dataclass(frozen=True)
class Draw:
    """Ask the policy for responses. Sent back: for each beginning a list of k responses.

    Where responses with gaps are given instead, for each of them a list of k fillings.
    """

    k: int = 1
    """Responses to each beginning. ≥ 1."""
    beginnings: tuple[tuple[int, ...], ...] = ((),)
    """Token ids the responses begin with; needs a :class:`.Continuer` unless all are empty."""
    limit: int | None = None
    """New tokens at most; None: to the end. Needs a :class:`.Continuer`."""
    erased: tuple[tuple[int | None, ...], ...] = ()
    """In place of beginnings: responses with gaps, None at each; needs a :class:`.Redrawer`."""

    @property
    def is_whole(self) -> bool:
        """Whether any :class:`.Sampler` can serve it: whole responses from the start."""
        return self.limit is None and not self.erased and not any(self.beginnings)


@dataclasses.dataclass(frozen=True)
class Score:
    """Ask the reward about texts. Sent back: :class:`Scored`."""

    texts: tuple[str, ...]
    """Answers, or beginnings of answers."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where rewards stand among k reference rewards; −1, −1 where the reward is not finite."""

    below: Int[np.ndarray, "K"]
    """Reference rewards below."""
    ties: Int[np.ndarray, "K"]
    """Reference rewards equal."""
    k: int
    """Reference rewards compared with."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """What the reward says."""

    rewards: Float[np.ndarray, "K"]
    """In the reward's unit. A number that is not finite is the procedure's to deal with."""
    quantiles: Float[np.ndarray, "K"] | None = None
    """Under the reference, where a calibration was given; NaN where the reward is not finite."""
    ranks: Ranks | None = None
    """Among the reference rewards, where the calibration has them."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What decoding cost, per prompt; means where it is of several."""

    responses: float
    """Responses sampled, whole or in part."""
    tokens: float
    """Tokens sampled."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The answer to one prompt, and everything that was sampled for it."""

    prompt_id: str
    """Whose answer."""
    text: str
    """The answer."""
    index: int
    """Which candidate it is."""
    candidates: tuple[Response, ...]
    """What was chosen among: all N, or the states of a chain."""
    rewards: tuple[float, ...]
    """Of the candidates, in the reward's unit; NaN where nothing had to be scored."""
    spent: Budget | None = None
    """Where it is not that of the candidates: beginnings are shared, proposals refused."""
    quantiles: tuple[float, ...] | None = None
    """Of the candidates under the reference, where a calibration was given."""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What only one procedure reports: votes, acceptance; JSON has words for all of it."""

    @property
    def tokens(self) -> int:
        """Tokens sampled for this answer; 0 where the sampler has none."""
        return int(self.budget.tokens)

    @property
    def budget(self) -> Budget:
        """What this answer cost."""
        if self.spent is not None:
            return self.spent
        tokens = sum(len(response.token_ids) for response in self.candidates)
        return Budget(len(self.candidates), tokens)


Steps = Generator[Draw | Score, Any, Decoded]
"""What a procedure does for one prompt. Sent: `list[list[Response]]` for a Draw, `Scored` for a
Score. Returned: the answer."""


class TextProcedure(ABC):
    """A procedure on text. Members are frozen dataclasses: their fields are their identity."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short and human: what a figure's legend shows."""

    @abstractmethod
    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        """Answer one prompt: yield what is needed, return the answer.

        Args:
            prompt: what to answer.
            rng: for choices of the procedure's own; draws have another.
        """

    @property
    def most(self) -> int:
        """Responses sampled for one answer at most, whole or in part."""
        raise NotImplementedError

    def most_within(self, longest: int) -> "Budget":
        """What one answer takes at most, where a response has at most `longest` tokens."""
        return Budget(self.most, self.most * longest)

    @property
    def needs_reward(self) -> bool:
        """Whether it ever asks for a score."""
        return True

    @property
    def needs_calibration(self) -> bool:
        """Whether it looks at quantiles."""
        return False

    @property
    def needs_beginnings(self) -> bool:
        """Whether it goes on from the beginning of a response: the policy must, too."""
        return False

    @property
    def needs_gaps(self) -> bool:
        """Whether it asks for gaps in a response to be filled: the policy must, too."""
        return False

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        """Refuse, or warn of, a policy and a reward that do not go together under this procedure.

        Called once, before anything is sampled. By default there is nothing to say.
        """
        del policy, reward


def budget_of(decoded: Sequence[Decoded]) -> Budget:
    """Mean cost per prompt.

    Example:
        >>> candidates = Response("yes", (7, 2)), Response("no", (3,))
        >>> budget_of([Decoded("a", "yes", 0, candidates, rewards=(1.0, 0.0))])
        Budget(responses=2.0, tokens=3.0)
    """
    if not decoded:
        raise ValueError("nothing was decoded; a mean cost needs at least one prompt.")
    spent = [one.budget for one in decoded]
    return Budget(
        float(np.mean([one.responses for one in spent])),
        float(np.mean([one.tokens for one in spent])),
    )
