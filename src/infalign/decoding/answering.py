"""Answering many prompts, some at a time, within a budget: what stops can go on.

Each chunk of prompts has random numbers of its own, so a chunk that is decoded again after a crash
comes out the same, whatever was decoded before it.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np

from infalign.decoding.counts import refuse_count
from infalign.decoding.metering import Meter, Metered
from infalign.decoding.records import record_of
from infalign.decoding.running import answer_all, check_procedure_fits
from infalign.decoding.text_procedure import Budget, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Reward, Sampler
from infalign.quantile.calibration import EmpiricalCalibration

__all__ = ["Answering", "BudgetEnd", "Ceiling", "check_numbers", "chunk_for", "spent_on"]

_SIDE_BY_SIDE, _LARGEST = 128, 64
"""Responses that a chunk should at least draw at once, and prompts in it at most."""


class BudgetEnd(Exception):
    """The budget does not reach for the next prompts. What was answered is answered."""


@final
@dataclasses.dataclass(frozen=True)
class Ceiling:
    """What may be sampled at most, over all prompts; it is never exceeded where
    a procedure can tell beforehand what it takes at most."""

    responses: int | None = None
    """Responses, whole or in part; None: as many as are needed. ≥ 1."""
    tokens: int | None = None
    """Tokens; None: as many as are needed. ≥ 1."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None:
                refuse_count(value, name, "a budget")

    def refuse(self, spent: Budget, next_: Budget | None, left: int) -> None:
        """Stop before prompts that could exceed it.

        Args:
            spent: so far.
            next_: what the next chunk may take at most; None where nobody knows, and the budget
                is looked at only afterwards.
            left: prompts that have no answer yet.

        Raises:
            BudgetEnd: saying what is spent and how to go on.
        """
        for name, most in vars(self).items():
            done = round(getattr(spent, name))
            may = 1 if next_ is None else round(getattr(next_, name))
            if most is not None and done + may > most:
                takes = "" if next_ is None else f"the next chunk of prompts may take {may:,}, and "
                raise BudgetEnd(
                    f"the budget of {most:,} {name} ends here: {done:,} are spent, {takes}{left:,} "
                    "prompts have no answer yet."
                )


@final
@dataclasses.dataclass(frozen=True)
class Answering:
    """A procedure, a policy and a reward, ready to answer a file of prompts in chunks.

    Args:
        procedure: finds the answers.
        policy: is sampled from.
        reward: judges; None where nothing asks for it.
        seed: of everything random.
        chunk: prompts answered at a time. ≥ 1.
        calibrate: responses of the reference drawn to each prompt, by which rewards become
            quantiles; 0: none are. The reference is the policy with its adapter off, if it has one.

    Raises:
        ValueError: a chunk below 1, one response to calibrate by, or no reward where one is needed.
        TypeError: the policy cannot do what the procedure needs.
    """

    procedure: TextProcedure
    policy: Sampler
    reward: Reward | None = None
    seed: int = 0
    chunk: int = 16
    calibrate: int = 0

    def __post_init__(self) -> None:
        check_numbers(self.chunk, self.calibrate)
        if self.calibrate and self.reward is None:
            raise ValueError("calibrate needs a reward whose quantiles it tells; none came.")
        stands_in = _nothing_yet() if self.calibrate else None
        check_procedure_fits(self.procedure, self.policy, self.reward, stands_in)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that leave no room for a response, before any is answered.

        Raises:
            ValueError: naming the prompt.
        """
        contexts = getattr(self.policy, "contexts", None)
        if contexts is not None:
            contexts([prompt.text for prompt in prompts])

    def most(self, prompts: int) -> Budget | None:
        """What so many prompts take at most; None where the procedure cannot tell."""
        longest = self.policy.sampling.max_new_tokens
        try:
            one = self.procedure.most_within(longest)
        except NotImplementedError:
            return None
        tokens = one.tokens + self.calibrate * longest
        return Budget(prompts * (one.responses + self.calibrate), prompts * tokens)

    def rows(self, prompts: Sequence[Prompt], place: int, meter: Meter) -> list[dict[str, Any]]:
        """The answers to one chunk of prompts.

        Args:
            prompts: of the chunk.
            place: which chunk it is, from 0: with the seed, what its random numbers are.
            meter: told what is sampled.
        """
        rng = np.random.default_rng([self.seed, place])
        calibration, further = None, [None] * len(prompts)
        if self.calibrate:
            calibration, further = self._calibration(prompts, rng, meter)
        decoded = answer_all(
            Metered(self.procedure, meter),
            self.policy,
            prompts,
            self.reward,
            calibration=calibration,
            rng=rng,
        )
        return [record_of(*row) for row in zip(prompts, decoded, further, strict=True)]

    def chunks(self, prompts: Sequence[Prompt]) -> list[Sequence[Prompt]]:
        """The prompts, some at a time."""
        return [prompts[i : i + self.chunk] for i in range(0, len(prompts), self.chunk)]

    def _calibration(
        self, prompts: Sequence[Prompt], rng: np.random.Generator, meter: Meter
    ) -> tuple[EmpiricalCalibration, list[Budget]]:
        """The reference's rewards on these prompts, and what they cost."""
        assert self.reward is not None  # as checked
        texts = [prompt.text for prompt in prompts]
        reference: Callable[[], Any] = getattr(self.policy, "reference", contextlib.nullcontext)
        with reference():
            drawn = self.policy.sample(texts, self.calibrate, rng)
        costs = [Budget(len(row), sum(len(one.token_ids) for one in row)) for row in drawn]
        for cost in costs:
            meter.add(cost)
        said = self.reward(texts, [[response.text for response in row] for row in drawn])
        ids = tuple(prompt.id for prompt in prompts)
        return EmpiricalCalibration(ids, np.asarray(said, dtype=float)), costs


def check_numbers(chunk: int, calibrate: int) -> None:
    """Refuse numbers that :class:`Answering` cannot work with; nothing is needed to know that.

    Raises:
        ValueError: a chunk below 1, or one response to calibrate by.
    """
    refuse_count(chunk, "chunk", "prompts answered at a time")
    refuse_count(calibrate, "calibrate", "responses of the reference to each prompt", least=0)
    if calibrate == 1:
        raise ValueError(
            f"calibrate is {calibrate}; at least 2 responses of the reference are needed to tell a "
            "quantile, or 0 for none."
        )


def chunk_for(procedure: TextProcedure) -> int:
    """Prompts at a time that keep a batch of responses full, and lose little when stopped.

    Chains and searches draw few responses of a prompt at once, so they take more prompts.
    """
    is_slow = procedure.needs_beginnings or procedure.needs_gaps
    at_once = 1 if is_slow else _most(procedure) or 1
    return max(1, min(_LARGEST, _SIDE_BY_SIDE // at_once))


def spent_on(rows: Sequence[Mapping[str, Any]]) -> Budget:
    """What the answers of a file took."""
    return Budget(sum(row["responses"] for row in rows), sum(row["tokens"] for row in rows))


def _most(procedure: TextProcedure) -> int | None:
    """Responses for one answer at most, where that is known."""
    try:
        return procedure.most
    except NotImplementedError:
        return None


def _nothing_yet() -> EmpiricalCalibration:
    """A calibration of no prompt, where it is only asked whether there will be one."""
    return EmpiricalCalibration((), np.zeros((0, 2)))
