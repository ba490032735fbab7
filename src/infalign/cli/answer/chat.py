"""`chat`: try a policy under a procedure, side by side with plain sampling."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infalign.cli.answer import options
from infalign.cli.answer.given import given_from
from infalign.cli.answer.members import policy_of, procedure_from, refuse_without, reward_from
from infalign.cli.console import Terminal, print_result
from infalign.cli.failing import explained
from infalign.cli.opening import terminal

if TYPE_CHECKING:
    from infalign.cli.answer.conversation import Conversation, Turn
    from infalign.decoding import TextProcedure

__all__ = ["chat"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What would steer the terminal rather than be read."""
_HELP = {
    "/n N": "draw N candidates",
    "/procedure NAME": "answer by another, such as 'soft_best_of_8(0.1)' or majority_vote",
    "/calibrate K": "draw K responses of the reference, so that rewards become quantiles",
    "/candidates": "what the last answer was chosen among",
    "/system TEXT": "begin the conversation with this; empty: with nothing",
    "/undo": "forget the last turn",
    "/reset": "forget all turns",
    "/quit": "leave; so does Ctrl-D",
}


@explained
def chat(
    policy: options.Policy = "infalign",
    model: options.Model = None,
    experiment: options.ExperimentFile = None,
    reward: options.RewardName = None,
    label: options.Label = None,
    server: options.Server = None,
    server_kind: options.ServerKind = None,
    api: options.API = None,
    tokenizer: options.Tokenizer = None,
    api_key_env: options.KeyVariable = None,
    procedure: options.ProcedureName = None,
    n: options.Number = None,
    beta: options.Beta = None,
    steps: options.StepCount = None,
    block: options.Block = None,
    calibrate: options.Calibrate = None,
    temperature: options.Temperature = None,
    max_new_tokens: options.MaxNewTokens = None,
    stop: options.Stop = None,
    seed: options.Seed = None,
) -> None:
    """Talk to a policy under a procedure, side by side with plain sampling.

    Each message is answered by one sample and by the procedure, with what each cost and what the \
reward says of it. The procedure's answer is what the conversation goes on from. Messages may come \
from a pipe; into a pipe go lines of JSON. /help tells the commands.

    Examples:
      [cyan]infalign chat --model embedded --reward embedded --procedure best_of_n --n 8[/]
      [cyan]infalign chat --experiment experiment.yaml --policy infalign[/]
      [cyan]infalign chat --model embedded --procedure majority_vote --n 8 < questions.txt[/]
    """
    said = dict(locals())
    given = given_from(said)
    chosen = procedure_from(given, said)
    refuse_without(chosen, said)
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(terminal())
        from infalign.cli.answer.conversation import Conversation

        judge, _ = reward_from(given, said)
        with show.working("loading"):
            answers, render = policy_of(given, given.api != "completions", stack)
        remembers = _can_render(render)
        if not remembers:
            show.note(f"{answers.name} has no chat template: it goes on from each message as it is")
        numbers: dict[str, Any] = {"seed": said["seed"] or 0, "calibrate": said["calibrate"] or 0}
        talk = Conversation(answers, render if remembers else None, judge, chosen, **numbers)
        _Chat(talk, show).run()


def _can_render(render: Any) -> bool:
    try:
        render([{"role": "user", "content": "Hello"}])
    except ValueError:
        return False
    return True


class _Chat:
    """Reads messages and commands, and shows answers."""

    def __init__(self, talk: "Conversation", show: Terminal) -> None:
        self._talk, self._show = talk, show
        self._is_asked = sys.stdin.isatty()
        self._is_seen = sys.stdout.isatty()
        self._console = Console(highlight=False)

    def run(self) -> None:
        """Until there is nothing more to read."""
        if self._is_asked:
            self._show.say(f"{self._talk.policy.name}, {self._talk.procedure.name}. /help, /quit")
        for line in self._lines():
            word, _, rest = line.partition(" ")
            if word == "/quit":
                return
            try:
                self._command(word, rest.strip()) if word[:1] == "/" else self._ask(line)
            except (ValueError, TypeError) as error:
                if not self._is_asked:
                    raise
                self._show.note(str(error))
            except KeyboardInterrupt:
                if not self._is_asked:
                    raise
                self._show.note("stopped; this message is forgotten. /quit leaves.")

    def _lines(self) -> Iterator[str]:
        """Messages; typed ones with what a line editor offers."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # what `input` edits with, once it is imported
        while True:
            try:
                line = input("› ") if self._is_asked else sys.stdin.readline()
            except EOFError:
                return
            except KeyboardInterrupt:
                self._show.note("/quit or Ctrl-D leaves.")
                continue
            if not line and not self._is_asked:
                return
            if line.strip():
                yield line.strip()

    def _ask(self, message: str) -> None:
        with self._show.working("answering"):
            turn = self._talk.ask(message)
        if self._is_seen:
            self._console.print(_side_by_side(turn))
        else:
            print_result(json.dumps(turn.record(), ensure_ascii=False))

    def _command(self, word: str, rest: str) -> None:
        from infalign.cli.answer.conversation import with_n
        from infalign.decoding import text_procedure_from_name

        match word:
            case "/help":
                for command, does in _HELP.items():
                    self._show.say(f"{command:16}  {does}")
            case "/n":
                self._change(with_n(self._talk.procedure, _number(word, rest)))
            case "/procedure":
                self._change(text_procedure_from_name(rest))
            case "/calibrate":
                self._talk.change(self._talk.procedure, _number(word, rest))
            case "/candidates":
                self._candidates()
            case "/system":
                self._talk.system = rest
            case "/undo" | "/reset":
                del self._talk.turns[-1 if word == "/undo" else 0 :]
                self._show.say(f"turns remembered: {len(self._talk.turns)}")
            case _:
                raise ValueError(f"{word} is no command. /help tells them.")

    def _change(self, procedure: "TextProcedure") -> None:
        if procedure.needs_calibration and not self._talk.answering.calibrate:
            raise ValueError(f"{procedure.name} looks at quantiles: /calibrate 64, say, first.")
        self._talk.change(procedure)
        self._show.say(f"answers by {procedure.name}")

    def _candidates(self) -> None:
        if not self._talk.turns:
            raise ValueError("nothing was answered yet.")
        row = self._talk.turns[-1].row
        table = Table("", "reward", "candidate", header_style="bold")
        for place, (text, reward) in enumerate(zip(row["candidates"], row["rewards"], strict=True)):
            mark = "→" if place == row["index"] else ""
            table.add_row(mark, "" if reward is None else f"{reward:.3f}", _readable(text))
        self._console.print(table)


def _number(word: str, rest: str) -> int:
    if not rest.isdigit():
        raise ValueError(f"{word} {rest}: a number is needed, as in {word} 8.")
    return int(rest)


def _readable(text: str) -> Text:
    return Text(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.strip()))


def _side_by_side(turn: "Turn") -> Table:
    plain = [] if turn.plain_reward is None else [f"reward {turn.plain_reward:.3f}"]
    row = turn.row
    chosen = [] if row["reward"] is None else [f"reward {row['reward']:.3f}"]
    if row["quantile"] is not None:
        chosen.append(f"quantile {row['quantile']:.2f}")
    chosen.append(f"{row['responses']} responses, {row['tokens']} tokens")
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(
        _panel("one sample", turn.plain, plain, "dim"),
        _panel(turn.procedure, turn.answer, chosen, "cyan"),
    )
    return table


def _panel(title: str, text: str, facts: list[str], style: str) -> Panel:
    below = Text(" · ".join(facts), "dim")
    return Panel(
        Group(_readable(text), below), title=Text(title), title_align="left", border_style=style
    )
