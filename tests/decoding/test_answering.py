"""Files of answers: whatever stops the work, the finished file is the same."""

import inspect
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from infalign.decoding import Budget, TextProcedure, text_procedure_from_name
from infalign.decoding.answer_files import AnswerFile, answer_lines
from infalign.decoding.answering import Answering, BudgetEnd, Ceiling, chunk_for, spent_on
from infalign.decoding.metering import Meter, Metered
from infalign.decoding.running import answer_all
from infalign.decoding.tracing import Traced
from infalign.decoding.watching import Watched
from infalign.policies import TabularLM
from infalign.prompts import Prompt
from infalign.rewards import FunctionReward

PROMPTS = [Prompt.from_text(f"prompt {i}") for i in range(7)]
LM = TabularLM.random(
    [prompt.text for prompt in PROMPTS], ("a", "b", "c"), 4, np.random.default_rng(0)
)
SETTINGS = {"procedure": "best-of-3", "seed": 0, "beta": 0.5}
NAMES = [
    "best_of_3",
    "soft_best_of_3(0.2)",
    "rewind_and_repeat(0.7, 4)",
    "best_of_geometric(2)",
    "best_of_n(5, at_once=2, maximum=4)",
    "blockwise_best_of_2(block=2)",
    "majority_vote(5)",
    "majority_vote(9, at_once=1)",
    "weighted_vote(4, 0.5)",
    "minimum_bayes_risk(4, exact_match)",
    "mcmc(0.5, steps=5, chains=2)",
    "mcmc(steps=3, tries=2, beta=1)",
    "qalign(0.5, steps=5)",
    "mcmc(n=3, steps=4)",
    "block_search(2, 2, 2)",
    "tree_search(4, 2, 2)",
    "identity",
]


def length(prompts, responses):
    return [[float(len(text)) for text in row] for row in responses]


REWARD = FunctionReward(length, must_be_finite=False)


def ready(name="best_of_3", reward=REWARD, **options):
    return Answering(text_procedure_from_name(name), LM, reward, **({"chunk": 2} | options))


def write(file, answering=None):
    """What the command line does, without showing it."""
    answering = answering or ready()
    chunks = answering.chunks(PROMPTS)
    with file.owned():
        for place, some in enumerate(chunks):
            if file.chunk(place) is None:
                file.keep(place, answering.rows(some, place, Meter()))
        file.finish(len(chunks))
    file.clean_up()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_metered_is_what_the_answers_say_they_cost(name):
    procedure, meter = text_procedure_from_name(name), Meter()
    calibrate = 8 if procedure.needs_calibration else 0
    answering = Answering(procedure, LM, REWARD, chunk=7, calibrate=calibrate)
    rows = answering.rows(PROMPTS, 0, meter)
    assert meter.spent == spent_on(rows)
    most = answering.most(7)
    assert most is None or meter.spent.responses <= most.responses
    assert most is None or meter.spent.tokens <= most.tokens
    assert [row["prompt_id"] for row in rows] == [prompt.id for prompt in PROMPTS]
    assert all(row["candidates"][row["index"]] == row["answer"] for row in rows)


@pytest.mark.parametrize("kind", [Metered, Traced])
def test_a_watched_procedure_forwards_all_there_is(kind):
    public = {name for name, _ in inspect.getmembers(TextProcedure) if not name.startswith("_")}
    assert kind.__mro__[1] is Watched
    assert not public & vars(kind).keys()  # nothing is forwarded in another way
    assert public <= vars(Watched).keys()


def test_metering_changes_no_answer():
    procedure, texts = text_procedure_from_name("qalign(0.5, steps=5)"), PROMPTS[:3]
    one = answer_all(procedure, LM, texts, REWARD, rng=np.random.default_rng(1))
    other = answer_all(Metered(procedure, Meter()), LM, texts, REWARD, rng=np.random.default_rng(1))
    assert one == other


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_stopped_at_any_rename_the_file_ends_the_same(tmp_path, monkeypatch, ending):
    """Every step that makes something visible is a rename: stop before and after each."""
    whole = tmp_path / f"whole.{ending}"
    write(AnswerFile(whole, SETTINGS))
    path, real, stops = tmp_path / f"answers.{ending}", os.replace, 0
    for is_before in (True, False):
        for stop_at in range(1, 12):
            count = 0

            def replace(a, b, stop_at=stop_at, is_before=is_before):
                nonlocal count
                count += 1
                if count == stop_at and is_before:
                    raise KeyboardInterrupt
                real(a, b)
                if count == stop_at:
                    raise KeyboardInterrupt

            monkeypatch.setattr(os, "replace", replace)
            try:
                write(AnswerFile(path, SETTINGS))
            except KeyboardInterrupt:
                stops += 1
                monkeypatch.setattr(os, "replace", real)
                file = AnswerFile(path, SETTINGS)
                file.refuse_others()
                if not file.is_finished:
                    write(file)
                file.clean_up()
            assert path.read_bytes() == whole.read_bytes()
            assert not (tmp_path / f"answers.{ending}.parts").exists()
            path.unlink()
    assert stops >= 10  # 4 chunks, the settings and the whole, twice


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_answering as t
calls = 0
def length(prompts, responses):
    global calls
    calls += 1
    if calls == {last}:
        os.kill(os.getpid(), signal.SIGKILL)
    return t.length(prompts, responses)
reward = t.FunctionReward(length, must_be_finite=False)
t.write(t.AnswerFile({path!r}, t.SETTINGS), t.ready(reward=reward))
"""


def test_killed_processes_end_the_same(tmp_path):
    whole, path = tmp_path / "whole.parquet", tmp_path / "answers.parquet"
    write(AnswerFile(whole, SETTINGS))
    here = os.path.dirname(os.path.abspath(__file__))
    codes = []
    for last in (3, 0):
        code = KILLED.format(tests=here, last=last, path=str(path))
        codes.append(subprocess.run([sys.executable, "-c", code], check=False).returncode)
        assert path.exists() == (last == 0)
    assert codes == [-signal.SIGKILL, 0]
    assert path.read_bytes() == whole.read_bytes()


def test_another_seed_is_another_file(tmp_path):
    """Negative control of the comparisons above."""
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    write(AnswerFile(one, SETTINGS))
    write(AnswerFile(other, SETTINGS), ready(seed=1))
    assert one.read_bytes() != other.read_bytes()


def test_a_damaged_part_is_answered_again(tmp_path, caplog):
    whole, path = tmp_path / "whole.parquet", tmp_path / "answers.parquet"
    write(AnswerFile(whole, SETTINGS))
    file = AnswerFile(path, SETTINGS)
    with file.owned():
        file.keep(0, ready().rows(PROMPTS[:2], 0, Meter()))
    (part,) = file.folder.glob("000000-*.parquet")
    part.write_bytes(part.read_bytes()[:-9])
    write(file)
    assert "damaged" in caplog.text
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_answers_of_other_settings_are_neither_mixed_nor_overwritten(tmp_path, ending):
    path = tmp_path / f"answers.{ending}"
    file = AnswerFile(path, SETTINGS)
    with file.owned():
        pass
    other = AnswerFile(path, SETTINGS | {"beta": 0.25})
    with pytest.raises(ValueError, match=r"beta is 0\.5 there and 0\.25 here.*delete the folder"):
        other.refuse_others()
    write(file)
    with pytest.raises(ValueError, match=r"beta is 0\.5 there and 0\.25 here"), other.owned():
        raise AssertionError
    AnswerFile(path, {"beta": 0.5}).refuse_others()  # what is not known yet is not compared


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path, ending):
    path = tmp_path / f"answers.{ending}"
    path.write_text("precious")
    with pytest.raises(ValueError, match="nothing tells how it was made"):
        AnswerFile(path, SETTINGS).refuse_others()
    assert path.read_text() == "precious"


def test_two_processes_do_not_write_one_file(tmp_path):
    file = AnswerFile(tmp_path / "answers.parquet", SETTINGS)
    with (
        file.owned(),
        pytest.raises(ValueError, match="another process"),
        AnswerFile(file.path, SETTINGS).owned(),
    ):
        raise AssertionError


@pytest.mark.parametrize("name", ["answers.csv", "answers", "answers.parquet/"])
def test_other_endings_and_folders_are_refused(tmp_path, name):
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"written as|is a folder"):
        AnswerFile(tmp_path / name, SETTINGS)


def test_both_formats_say_the_same(tmp_path):
    write(AnswerFile(tmp_path / "a.parquet", SETTINGS))
    write(AnswerFile(tmp_path / "a.jsonl", SETTINGS))
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert list(answer_lines(rows)) == (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads((tmp_path / "a.jsonl.settings.json").read_text()) == SETTINGS


def test_a_chunk_does_not_depend_on_those_before_it():
    alone = ready().rows(PROMPTS[2:4], 1, Meter())
    answering = ready()
    answering.rows(PROMPTS[:2], 0, Meter())
    assert answering.rows(PROMPTS[2:4], 1, Meter()) == alone
    assert answering.rows(PROMPTS[2:4], 2, Meter()) != alone


def test_quantiles_come_from_draws_that_are_counted():
    row = ready("soft_best_of_3(0.1)", calibrate=16).rows(PROMPTS[:1], 0, Meter())[0]
    assert row["responses"] == 3 + 16
    assert 0 <= row["quantile"] <= 1
    assert row["quantile"] == row["quantiles"][row["index"]]


def test_a_reward_that_is_no_number_is_reported_and_the_chain_kept():
    def broken(prompts, responses):
        return [[np.nan if "ca" in text else 1.0 for text in row] for row in responses]

    reward = FunctionReward(broken, must_be_finite=False)
    answering = ready("qalign(0.5, steps=8)", reward, chunk=7)
    rows = answering.rows(PROMPTS, 0, Meter())
    assert any(json.loads(row["details"])["unscored"] for row in rows)
    assert not any("ca" in row["answer"] for row in rows)
    with pytest.raises(ValueError, match=r"candidate .* is nan"):
        ready("best_of_32", reward).rows(PROMPTS, 0, Meter())


def test_a_budget_is_never_exceeded():
    answering, meter = ready(chunk=2), Meter()
    ceiling = Ceiling(responses=16)
    for place, some in enumerate(answering.chunks(PROMPTS)[:2]):
        ceiling.refuse(meter.spent, answering.most(len(some)), len(PROMPTS))
        answering.rows(some, place, meter)
    with pytest.raises(BudgetEnd, match=r"budget of 16 responses ends here: 12 are spent.* 3 pro"):
        ceiling.refuse(meter.spent, answering.most(2), 3)
    ceiling.refuse(meter.spent, answering.most(1), 3)
    with pytest.raises(BudgetEnd, match="50 tokens"):
        Ceiling(tokens=50).refuse(Budget(2, 50), None, 3)
    Ceiling(tokens=51).refuse(Budget(2, 50), None, 3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ready(chunk=0), "chunk is 0"),
        (lambda: ready(chunk=True), "chunk is True"),
        (lambda: ready(chunk=2.5), "chunk is 2.5"),
        (lambda: Ceiling(tokens=float("nan")), "tokens is nan"),
        (lambda: ready(calibrate=1), "at least 2"),
        (lambda: ready(calibrate=-4), "calibrate is -4"),
        (lambda: ready("majority_vote(3)", None, calibrate=4), "needs a reward"),
        (lambda: ready(reward=None), "needs a reward"),
        (lambda: ready("soft_best_of_3(0.1)"), "calibration"),
        (lambda: Ceiling(responses=0), "an integer ≥ 1 is needed"),
        (lambda: Ceiling(tokens=True), "an integer ≥ 1 is needed"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_drawn(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_chunks_keep_a_batch_full():
    chunk = {name: chunk_for(text_procedure_from_name(name)) for name in NAMES}
    assert chunk["best_of_3"] == 42
    assert chunk["qalign(0.5, steps=5)"] == 64
    assert chunk_for(text_procedure_from_name("best_of_1000")) == 1
