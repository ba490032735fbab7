"""`infalign chat`: both answers, what is remembered, commands, pipes."""

import builtins
import io
import json
import sys

import numpy as np
import pytest

from infalign.cli.answer.chat import _Chat
from infalign.cli.answer.conversation import Conversation, with_n
from infalign.cli.console import Terminal
from infalign.decoding import text_procedure_from_name
from infalign.policies import TabularLM
from infalign.rewards import FunctionReward

LM = TabularLM.random(["x"], ("a ", "b ", "\x1b[31m"), 4, np.random.default_rng(0))


class AnyPrompt:
    """A table of tokens that answers every prompt alike, and keeps what it was asked."""

    name = "table"

    def __init__(self):
        self.lm, self.asked = LM, []
        self.sampling, self.fingerprint = self.lm.sampling, "f"

    def sample(self, prompts, k, rng):
        self.asked += prompts
        return self.lm.sample(["x"] * len(prompts), k, rng)

    def continue_from(self, prompts, beginnings, k, rng, *, limit=None):
        return self.lm.continue_from(["x"] * len(prompts), beginnings, k, rng, limit=limit)

    def contexts(self, prompts):
        if len(prompts[0]) > 400:
            raise ValueError("the conversation has outgrown the window")


def render(turns):
    return "".join(f"<{turn['role']}>{turn['content'].strip()}" for turn in turns)


def length(prompts, responses):
    return [[float(len(text)) for text in row] for row in responses]


def talk(name="best_of_4", reward=length, render=render, **options):
    judge = None if reward is None else FunctionReward(reward)
    return Conversation(AnyPrompt(), render, judge, text_procedure_from_name(name), **options)


def test_each_message_has_two_answers():
    turn = talk().ask("Why?")
    assert turn.row["reward"] == max(turn.row["rewards"]) == len(turn.answer)
    assert turn.plain_reward == len(turn.plain)
    record = turn.record()
    assert record["message"] == "Why?"
    assert (record["responses"], record["procedure"]) == (4, "best-of-4")


def test_both_answers_are_drawn_apart():
    """One sample is no candidate of the other: over many turns they differ as often as chance."""
    conversation = talk("identity", None, None)
    pairs = [(turn.plain, turn.answer) for turn in (conversation.ask("x") for _ in range(200))]
    masses: dict[str, float] = {}
    for text, mass in zip(LM.texts(), LM.masses[0], strict=True):
        masses[text] = masses.get(text, 0) + mass
    alike = sum(mass**2 for mass in masses.values())
    # False alarms: four standard errors, 1 in 16,000.
    error = 4 * np.sqrt(alike * (1 - alike) / 200)
    assert abs(np.mean([one == other for one, other in pairs]) - alike) < error


def test_the_procedures_answer_is_what_the_conversation_goes_on_from():
    conversation = talk()
    conversation.system = "Be kind."
    first = conversation.ask("Why?")
    conversation.ask("And?")
    asked = conversation.policy.asked[-1]
    wanted = f"<system>Be kind.<user>Why?<assistant>{first.answer.strip()}<user>And?"
    assert asked == wanted


def test_without_a_template_nothing_is_remembered():
    conversation = talk(render=None)
    conversation.ask("Once upon a time")
    conversation.ask("There was")
    assert not conversation.remembers
    assert conversation.policy.asked[-1] == "There was"


def test_the_same_seed_is_the_same_conversation():
    one, other, third = talk(), talk(), talk(seed=1)
    said = [[c.ask(m).record() for m in ("Why?", "How?", "When?")] for c in (one, other, third)]
    assert said[0] == said[1] != said[2]


def test_a_procedure_that_does_not_fit_changes_nothing():
    conversation = talk()
    with pytest.raises(ValueError, match="calibration"):
        conversation.change(text_procedure_from_name("soft_best_of_4(0.1)"))
    assert conversation.procedure.name == "best-of-4"
    conversation.change(text_procedure_from_name("soft_best_of_4(0.1)"), calibrate=8)
    assert conversation.ask("Why?").row["quantile"] is not None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("soft_best_of_4(0.1)", "soft_best_of_8(0.1)"),
        ("majority_vote(4)", "majority_vote(8)"),
        ("mcmc(n=4, steps=3)", "mcmc(n=8, steps=3)"),
        ("best_of_n(4, maximum=1)", "best_of_n(8, maximum=1)"),
    ],
)
def test_another_n(name, wanted):
    assert with_n(text_procedure_from_name(name), 8) == text_procedure_from_name(wanted)


def test_no_n_to_change():
    with pytest.raises(ValueError, match="no N"):
        with_n(text_procedure_from_name("qalign"), 8)
    with pytest.raises(ValueError, match="n is 0"):
        with_n(text_procedure_from_name("best_of_4"), 0)


@pytest.fixture
def typed(monkeypatch, capsys):
    """What a person at a terminal sees who types these lines."""

    def run(conversation, *lines):
        waiting = list(lines)

        def read(prompt):
            if not waiting:
                raise EOFError
            line = waiting.pop(0)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(builtins, "input", read)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        _Chat(conversation, Terminal()).run()
        out, err = capsys.readouterr()
        assert not waiting
        return out, err

    return run


def test_answers_stand_side_by_side(typed):
    out, err = typed(talk(), "Why?", "/quit")
    assert "one sample" in out
    assert "best-of-4" in out.splitlines()[0]
    assert "4 responses" in out
    assert "/help" in err


def test_what_a_model_says_does_not_steer_the_terminal(typed):
    out, _ = typed(talk(reward=lambda p, r: [[float("\x1b" in t) for t in row] for row in r]), "?")
    assert "\x1b[31m" not in out
    assert "�[31m" in out


def test_commands(typed):
    conversation = talk()
    lines = (
        "/n 2",
        "Why?",
        "/candidates",
        "/undo",
        "/system Be kind.",
        "/procedure majority_vote(3)",
    )
    out, err = typed(conversation, *lines, "And?", "/reset", "/help")
    assert "answers by best-of-2" in err
    assert "answers by majority-of-3" in err
    assert "→" in out
    assert conversation.turns == []
    assert conversation.policy.asked[-1] == "<system>Be kind.<user>And?"
    assert all(command in err for command in ("/n N", "/procedure NAME", "/quit"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/n", "a number is needed"),
        ("/n 0", "n is 0"),
        ("/n -3", "a number is needed"),
        ("/bogus", "/bogus is no command"),
        ("/procedure", "Unknown procedure"),
        ("/procedure best_off_4", "Did you mean 'best_of_n'"),
        ("/procedure rewind_and_repeat(0.5, 3)", "/calibrate 64"),
        ("/calibrate 1", "at least 2"),
        ("/candidates", "nothing was answered"),
        ("word " * 100, "outgrown"),
    ],
)
def test_slips_are_told_and_the_conversation_goes_on(typed, line, said):
    conversation = talk()
    out, err = typed(conversation, line, "Why?")
    assert said in " ".join(err.split())
    assert "one sample" in out
    assert len(conversation.turns) == 1


def test_ctrl_c_leaves_only_a_word(typed):
    _, err = typed(talk(), KeyboardInterrupt(), "Why?")
    assert "/quit or Ctrl-D leaves" in err


@pytest.fixture
def piped(monkeypatch):
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_pipe_gives_lines_of_json(piped, capsys):
    piped("Why?\n\n/n 2\nHow?\n")
    _Chat(talk(), Terminal()).run()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["message"] for row in rows] == ["Why?", "How?"]
    assert [row["responses"] for row in rows] == [4, 2]


def test_a_slip_in_a_pipe_ends_it(piped):
    piped("/bogus\nWhy?\n")
    with pytest.raises(ValueError, match="no command"):
        _Chat(talk(), Terminal()).run()


def test_the_verb_itself(infalign_command, tmp_path, monkeypatch, tokenizer, tiny_llama, piped):
    pytest.importorskip("torch")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    options = ("chat", "--model", "model", "--max-new-tokens", "4")
    piped("Why?\nHow?\n")
    code, out, _ = infalign_command(*options, "--procedure", "majority_vote(3)")
    assert code == 0
    assert [json.loads(line)["responses"] for line in out.splitlines()] == [3, 3]
    code, _, err = infalign_command(*options, "--procedure", "best_of_3")
    assert code == 2
    assert "needs a reward" in err
    code, _, err = infalign_command(*options)
    assert code == 2
    assert "nothing says how to answer" in err
