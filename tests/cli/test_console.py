"""Notes and progress on standard error, results on standard output; few lines, whole bars."""

import os
import pty
import re
import subprocess
import sys
import warnings

import pytest

from infalign.cli.console import Terminal
from infalign.cli.pace import Pace
from infalign.cli.quiet import note_warnings


def test_messages_and_results_go_their_own_ways(capsys):
    terminal = Terminal()
    terminal.say("an [bold]unmarked[/] line")
    terminal.table("Rates", ["transform", "wins"], [["raw", "0.81"], ["exp(10)", "0.9"]])
    out, err = capsys.readouterr()
    assert err == "an [bold]unmarked[/] line\n"
    assert "Rates" in out
    assert re.search(r"raw +│ +0\.81 ", out)
    assert re.search(r"exp\(10\) +│ +0\.9 ", out)


def test_long_lines_and_tables_are_not_broken_in_a_file(capsys):
    Terminal().say("word " * 60)
    Terminal().table("T", ["a", "b"], [["x" * 150, "y" * 150]])
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert "x" * 150 in out


def test_an_hour_of_progress_is_less_than_a_hundred_lines(capsys):
    now = [0.0]
    with Terminal(lambda: now[0]).progress("train") as update:
        for done in range(3601):
            now[0] += 1
            update(done, 3600)
    lines = capsys.readouterr().err.splitlines()
    assert 50 < len(lines) < 100
    assert lines[-1] == "train  3600/3600  in 1:00:01  1.0/s"
    assert re.fullmatch(r"train  \d+/3600  \d+ %  1\.0/s, [\d:]+ left", lines[10])


def test_work_that_was_there_already_is_not_spoken_of(capsys):
    with Terminal().progress("rollouts") as update:
        update(64, 64)
    assert capsys.readouterr().err == ""


def test_work_that_stops_says_how_far_it_came(capsys):
    def work():
        with Terminal().progress("rewards") as update:
            update(0, 8)
            update(3, 8)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert capsys.readouterr().err.startswith("rewards  3/8  in ")


def test_a_resumed_run_is_not_credited_with_what_was_there():
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.update(900, 1000)
    assert (pace.rate, pace.remaining) == (None, None)
    now[0] = 10.0
    pace.update(910, 1000)
    assert (pace.rate, pace.remaining) == (1.0, 90.0)
    now[0] = 15.0
    pace.update(910, 1000)  # the same again: time passes, nothing else
    assert (pace.rate, pace.remaining) == (1.0, 85.0)


SIDE_BY_SIDE = """
import threading, time, warnings
from infalign.cli.console import Terminal
terminal = Terminal()
with terminal.progress("train one") as one, terminal.progress("train two") as two:
    for done in range(11):
        one(done, 20), two(done, 10)
        time.sleep(0.05)
        if done == 5:
            terminal.say("said between")
            terminal.table("Rates", ["transform", "wins"], [["raw", "0.81"]])
    time.sleep(0.3)
print("END")
"""


@pytest.fixture(scope="module")
def screen():
    """What a terminal receives from two bars, a line and a table between them."""
    main, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    command = [sys.executable, "-c", SIDE_BY_SIDE]
    process = subprocess.Popen(command, stdout=child, stderr=child, env=environment)
    os.close(child)
    received = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux reports the closed end of a terminal as an error
            break
        if not part:
            break
        received += part
    os.close(main)
    assert process.wait() == 0
    return received.decode()


def test_two_bars_are_alive_at_once(screen):
    frames = re.split(r"\x1b\[\?25l|\x1b\[2K\x1b\[1A", screen)
    assert "train one" in screen
    assert any("train two" in frame for frame in frames)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    assert re.search(r"train one +[━╸╺ ]+ +\d+ % +\d+/20 .*\n?\r?.*train two", plain)
    assert re.search(r"\d/s, \d+ s left", plain)


def test_what_is_printed_between_bars_stays_whole(screen):
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen)
    assert "said between" in plain
    assert "└" in plain[plain.index("raw") :]
    assert "✓ train two  10/10" in plain
    assert "· train one  10/20" in plain
    assert plain.rstrip().endswith("END")


def test_the_users_and_our_warnings_are_notes_once_and_others_are_dropped(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        note_warnings(Terminal().note)
        for _ in range(2):
            warnings.warn("from the user's own file", stacklevel=1)
        installed = pytest.__file__
        warnings.warn_explicit("from a library", UserWarning, installed, 1)
    assert capsys.readouterr().err == "note: from the user's own file\n"


def test_our_log_records_are_notes(capsys):
    import logging

    note_warnings(Terminal().note)
    logging.getLogger("infalign.rewards").warning("falling back to %s", "SmolLM2")
    logging.getLogger("transformers").warning("noise")
    assert capsys.readouterr().err == "note: falling back to SmolLM2\n"
