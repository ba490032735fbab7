"""A conversation in which every message is answered twice: by one sample, and by a procedure."""

import dataclasses
from collections.abc import Callable
from typing import Any, final

import numpy as np

from infalign.decoding import TextProcedure, text_procedure_from_name
from infalign.decoding.answering import Answering
from infalign.decoding.metering import Meter
from infalign.prompts import Prompt, render_prompts
from infalign.protocols import Reward, Sampler

__all__ = ["Conversation", "Turn", "with_n"]


@final
@dataclasses.dataclass(frozen=True)
class Turn:
    """One message and both answers."""

    message: str
    """What was asked."""
    plain: str
    """One sample."""
    plain_reward: float | None
    """Its reward, where there is one."""
    row: dict[str, Any]
    """The procedure's answer, as :func:`infalign.decoding.records.record_of` tells it."""
    procedure: str
    """By what."""

    @property
    def answer(self) -> str:
        """The procedure's answer."""
        return self.row["answer"]

    def record(self) -> dict[str, Any]:
        """In JSON's words."""
        names = ("answer", "reward", "quantile", "responses", "tokens")
        told = {name: self.row[name] for name in names if self.row[name] is not None}
        plain: dict[str, Any] = {"plain": self.plain}
        if self.plain_reward is not None:
            plain["plain_reward"] = self.plain_reward
        return {"message": self.message, "procedure": self.procedure, **plain, **told}


@final
class Conversation:
    """Messages, answers, and by what they are answered. What was answered is what is talked about.

    Args:
        policy: answers.
        render: chat messages → a prompt's text; None: each message is a text to go on from, and
            nothing is remembered.
        reward: judges; None where the procedure needs none.
        procedure: finds the second answer.
        seed: of everything random.
        calibrate: responses of the reference to each message, for quantiles; 0: none.
    """

    def __init__(
        self,
        policy: Sampler,
        render: Callable[[list[Any]], str] | None,
        reward: Reward | None,
        procedure: TextProcedure,
        *,
        seed: int = 0,
        calibrate: int = 0,
    ) -> None:
        self.policy, self._render, self.reward = policy, render, reward
        self._seed, self._asked = seed, 0
        self._calibrate = calibrate
        self.system = ""
        """The first message of all, from nobody; empty: none."""
        self.turns: list[Turn] = []
        """What is remembered."""
        self.answering = self._by(procedure)

    @property
    def procedure(self) -> TextProcedure:
        """Finds the second answer."""
        return self.answering.procedure

    @property
    def remembers(self) -> bool:
        """Whether earlier turns are part of what is asked."""
        return self._render is not None

    def change(self, procedure: TextProcedure, calibrate: int | None = None) -> None:
        """Answer by another procedure from now on.

        Raises:
            ValueError: it needs a reward or a calibration that is not there.
            TypeError: the policy cannot do what it needs.
        """
        before = self._calibrate
        self._calibrate = before if calibrate is None else calibrate
        try:
            self.answering = self._by(procedure)
        except (ValueError, TypeError):
            self._calibrate = before
            raise

    def ask(self, message: str, meter: Meter | None = None) -> Turn:
        """Answer a message, and remember it.

        Raises:
            ValueError: an empty message, a conversation that has outgrown the context window, or a
                reward that is no number.
        """
        prompt = self._prompt(message)
        self.answering.check([prompt])
        place, meter = 2 * self._asked, meter or Meter()
        self._asked += 1
        plain = Answering(text_procedure_from_name("identity"), self.policy, seed=self._seed)
        first = plain.rows([prompt], place + 1, meter)[0]["answer"]
        row = self.answering.rows([prompt], place, meter)[0]
        said = None if self.reward is None else self.reward([prompt.text], [[first]])
        reward = None if said is None else float(np.asarray(said)[0, 0])
        turn = Turn(message, first, reward, row, self.procedure.name)
        self.turns.append(turn)
        return turn

    def _by(self, procedure: TextProcedure) -> Answering:
        return Answering(procedure, self.policy, self.reward, self._seed, calibrate=self._calibrate)

    def _prompt(self, message: str) -> Prompt:
        if self._render is None:
            return Prompt.from_text(message)
        said = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            said += [
                {"role": "user", "content": turn.message},
                {"role": "assistant", "content": turn.answer},
            ]
        said.append({"role": "user", "content": message})
        return render_prompts([Prompt.from_messages(said)], self._render)[0]


def with_n(procedure: TextProcedure, n: int) -> TextProcedure:
    """The same procedure with another number of candidates.

    Raises:
        ValueError: it has none, or n is no number of candidates.

    Example:
        >>> with_n(text_procedure_from_name("best_of_4"), 8).name
        'best-of-8'
    """
    known: Any = procedure
    if _has_n(known):
        return dataclasses.replace(known, n=n)
    for name in ("procedure", "target"):
        inner: Any = getattr(known, name, None)
        if inner is not None and _has_n(inner):
            return dataclasses.replace(known, **{name: dataclasses.replace(inner, n=n)})
    raise ValueError(f"{procedure.name} has no N to change.")


def _has_n(member: Any) -> bool:
    return any(field.name == "n" for field in dataclasses.fields(member))
