"""Answering a file of prompts: what is checked first, and the loop that can be stopped."""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infalign.cli.answer.given import Given
from infalign.cli.answer.members import (
    policy_of,
    procedure_from,
    refuse_without,
    reward_from,
)
from infalign.cli.console import Terminal, print_result
from infalign.cli.failing import kept
from infalign.cli.opening import terminal
from infalign.prompts import Prompt, load_prompts, prompts_from_lines, render_prompts

if TYPE_CHECKING:
    from infalign.decoding import Budget, TextProcedure
    from infalign.decoding.answer_files import AnswerFile
    from infalign.decoding.answering import Answering, Ceiling

__all__ = ["answer_prompts"]


def answer_prompts(given: Given, said: Mapping[str, Any]) -> None:
    """Answer a file of prompts, as the options say.

    What can be refused without loading a model is refused first.

    Raises:
        ValueError: prompts, a procedure, a reward or a policy that cannot be used, or answers of
            other settings where these would be written.
        BudgetEnd: the budget does not reach.
    """
    from infalign.decoding.answer_files import AnswerFile
    from infalign.decoding.answering import Answering, Ceiling, check_numbers, chunk_for

    ceiling = Ceiling(said["max_responses"], said["max_tokens_total"])
    procedure = procedure_from(given, said)
    refuse_without(procedure, said)
    prompts = _prompts(said["source"], said["field"], said["limit"])
    chunk = chunk_for(procedure) if said["chunk"] is None else said["chunk"]
    numbers = {"seed": said["seed"] or 0, "chunk": chunk, "calibrate": said["calibrate"] or 0}
    check_numbers(chunk, numbers["calibrate"])
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(terminal())
        reward, judged_by = reward_from(given, said)
        settings = _settings(given, procedure, prompts, judged_by, numbers)
        output = said["output"]
        if output is not None:
            AnswerFile(output, settings).refuse_others()
        with show.working("loading"):
            is_chat = any(prompt.messages for prompt in prompts)
            policy: Any
            policy, render = policy_of(given, is_chat, stack)
        answering = Answering(procedure, policy, reward, **numbers)
        if is_chat:
            prompts = render_prompts(prompts, render)
        answering.check(prompts)
        if given.tokenizer is not None:  # whether it is the served model's can be told
            policy.check([prompt.text for prompt in prompts])
        if output is None:
            _to_stdout(answering, prompts, ceiling, show)
        else:
            file = AnswerFile(output, settings | {"policy": policy.fingerprint})
            _to_file(answering, prompts, ceiling, file, show)


def _to_file(
    answering: "Answering",
    prompts: Sequence[Prompt],
    ceiling: "Ceiling",
    file: "AnswerFile",
    show: Terminal,
) -> None:
    file.refuse_others()
    if file.is_finished:
        file.clean_up()
        show.note(f"all {len(prompts):,} answers are there already")
        print_result(str(file.path))
        return
    chunks = answering.chunks(prompts)
    shown = _Shown(answering, prompts, show, file.folder)
    with file.owned(), kept(file.folder, (ValueError,)), shown:
        done = [file.chunk(place) for place in range(len(chunks))]
        shown.found([row for rows in done for row in rows or ()])
        for place, some in enumerate(chunks):
            if done[place] is None:
                shown.begin(ceiling, some)
                rows = answering.rows(some, place, shown.meter)
                file.keep(place, rows)
                shown.answered(rows)
        file.finish(len(chunks))
    file.clean_up()
    show.say(shown.summary())
    print_result(str(file.path))


def _to_stdout(
    answering: "Answering", prompts: Sequence[Prompt], ceiling: "Ceiling", show: Terminal
) -> None:
    from infalign.decoding.answer_files import answer_lines

    with _Shown(answering, prompts, show) as shown:
        shown.found([])
        for place, some in enumerate(answering.chunks(prompts)):
            shown.begin(ceiling, some)
            rows = answering.rows(some, place, shown.meter)
            for line in answer_lines(rows):
                print_result(line)
            shown.answered(rows)
    show.say(shown.summary())


class _Shown:
    """The bar, with the budget so far."""

    def __init__(
        self,
        answering: "Answering",
        prompts: Sequence[Prompt],
        show: Terminal,
        folder: Path | None = None,
    ) -> None:
        from infalign.decoding.metering import Meter

        self._folder = folder
        self._answering, self._total = answering, len(prompts)
        self._progress = show.progress("decode", self._aside)
        self._update: Callable[[int, int], None] = lambda done, total: None
        self.meter = Meter(self._tick)
        self._done, self._under_way, self._began = 0, 0, time.monotonic()
        self._before = self._at_chunk = self.meter.spent

    def __enter__(self) -> "_Shown":
        self._update = self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._under_way = 0  # what was under way is not kept
        self._tick()
        self._progress.__exit__(*error)

    def found(self, rows: Sequence[dict[str, Any]]) -> None:
        """What an earlier sitting left."""
        from infalign.decoding.answering import spent_on

        self._done = len(rows)
        self.meter.spent = self._before = spent_on(rows)
        self._began = time.monotonic()
        self._tick()

    def answered(self, rows: Sequence[dict[str, Any]]) -> None:
        """So many more."""
        self._done, self._under_way = self._done + len(rows), 0
        self._tick()

    def begin(self, ceiling: "Ceiling", some: Sequence[Prompt]) -> None:
        """The next prompts; stops where the budget could be exceeded."""
        from infalign.decoding.answering import BudgetEnd

        left = self._total - self._done
        try:
            ceiling.refuse(self.meter.spent, self._answering.most(len(some)), left)
        except BudgetEnd as end:
            where = "" if self._folder is None else f" What was finished is kept in {self._folder}."
            end.add_note(
                f"Raise --max-responses or --max-tokens-total to go on; lower --chunk to come "
                f"closer.{where}"
            )
            raise
        self._under_way, self._at_chunk = len(some), self.meter.spent

    def summary(self) -> str:
        """What it came to."""
        name = self._answering.procedure.name
        return f"{self._done:,} answers by {name}: {_written(self.meter.spent)}"

    def _aside(self) -> str:
        seconds = time.monotonic() - self._began
        tokens = self.meter.spent.tokens - self._before.tokens
        rate = f", {tokens / seconds:,.0f}/s" if tokens and seconds > 1 else ""
        return _written(self.meter.spent) + rate

    def _tick(self) -> None:
        self._update(self._done + self._nearly(), self._total)

    def _nearly(self) -> int:
        """Of the prompts under way, as many as their share of the work would be; never all."""
        most = self._answering.most(self._under_way) if self._under_way else None
        if most is None:
            return 0
        share = (self.meter.spent.responses - self._at_chunk.responses) / most.responses
        return min(int(share * self._under_way), self._under_way - 1)


def _written(spent: "Budget") -> str:
    return f"{spent.responses:,.0f} responses, {spent.tokens:,.0f} tokens"


def _prompts(source: str, field: str | None, limit: int | None) -> list[Prompt]:
    if source != "-":
        return load_prompts(source, field, limit)
    if limit is not None and limit < 1:
        raise ValueError(f"--limit is {limit}; it must be at least 1.")
    return prompts_from_lines(sys.stdin.buffer, field=field)[:limit]


def _settings(
    given: Given,
    procedure: "TextProcedure",
    prompts: Sequence[Prompt],
    reward: Any,
    numbers: Mapping[str, int],
) -> dict[str, Any]:
    """What the answers depend on, before a policy is loaded."""
    from infalign.decoding.identity import procedure_identity

    ids = hashlib.sha256("".join(prompt.id for prompt in prompts).encode()).hexdigest()
    law = {} if given.experiment else vars(given.sampling) | {"stop": list(given.sampling.stop)}
    return {
        "procedure": procedure.name,
        "procedure_settings": json.dumps(procedure_identity(procedure)),
        "prompts": f"{len(prompts)} with digest {ids[:16]}",
        "reward": reward,
        **law,
        **numbers,
    }
