"""Prompts: the same content is the same prompt, and a prompt has one side of a split."""

import csv
import gzip
import json
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infalign.prompts import Prompt, load_prompts, render_prompts, split_prompts

TEXTS = ["Why is the sky blue?", "Name a prime, please", 'He said "hi",\nthen left', "Grüße ☃"]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
ANSWER = {"role": "assistant", "content": "Hello!"}
SHARED = Path(__file__).parents[2] / "shared" / "data"


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    pd.DataFrame(rows).to_parquet(path)
    return path


def write_dataset(path, rows):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return path


WRITERS = [
    pytest.param(write_jsonl, "p.jsonl", id="jsonl"),
    pytest.param(write_csv, "p.csv", id="csv"),
    pytest.param(write_parquet, "p.parquet", id="parquet"),
    pytest.param(write_dataset, "p", id="dataset"),
]


@pytest.mark.parametrize(("write", "name"), WRITERS)
@pytest.mark.parametrize("field", ["prompt", "question", "instruction", "text"])
def test_plain_text_is_the_same_prompt_in_every_format(tmp_path, write, name, field):
    path = write(tmp_path / name, [{"other": "x", field: text} for text in TEXTS])
    assert load_prompts(path) == [Prompt.from_text(text) for text in TEXTS]


@pytest.mark.parametrize(("write", "name"), [w for w in WRITERS if w.id != "csv"])
@pytest.mark.parametrize(
    "row", [{"prompt": CHAT}, {"messages": [*CHAT, ANSWER]}, {"messages": CHAT}]
)
def test_trl_conversations_are_read_as_they_are(tmp_path, write, name, row):
    (prompt,) = load_prompts(write(tmp_path / name, [row]))
    assert prompt == Prompt.from_messages(CHAT)
    assert list(prompt.messages) == CHAT


def test_an_assistant_turn_that_ends_a_prompt_column_is_to_be_continued(tmp_path):
    (prompt,) = load_prompts(write_jsonl(tmp_path / "p.jsonl", [{"prompt": [*CHAT, ANSWER]}]))
    assert prompt.messages[-1] == ANSWER


def test_messages_in_a_csv_cell_are_json(tmp_path):
    path = write_csv(tmp_path / "p.csv", [{"messages": json.dumps([*CHAT, ANSWER])}])
    assert load_prompts(path) == [Prompt.from_messages(CHAT)]


def test_nulls_that_parquet_adds_to_messages_do_not_change_the_prompt(tmp_path):
    rows = [{"prompt": CHAT}, {"prompt": [{"role": "user", "content": "Hi", "name": "Ada"}]}]
    path = write_parquet(tmp_path / "p.parquet", rows)
    assert [p.id for p in load_prompts(path)] == [
        Prompt.from_messages(row["prompt"]).id for row in rows
    ]


def test_alpaca_input_belongs_to_the_instruction(tmp_path):
    rows = [{"instruction": "Add", "input": "1 2"}, {"instruction": "Sing", "input": ""}]
    path = write_jsonl(tmp_path / "p.jsonl", rows)
    assert [p.text for p in load_prompts(path)] == ["Add\n\n1 2", "Sing"]
    assert [p.text for p in load_prompts(path, field="instruction")] == ["Add", "Sing"]


def test_a_byte_order_mark_blank_lines_and_windows_endings_are_no_content(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n\n')
    assert [p.text for p in load_prompts(path)] == ["a", "b"]
    path = tmp_path / "p.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt\r\n"a"\r\nb\r\n')
    assert [p.text for p in load_prompts(path)] == ["a", "b"]


def test_repeats_are_left_out_and_counted(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": text} for text in "abacab"])
    with pytest.warns(UserWarning, match="3 of 6 prompts repeat"):
        assert [p.text for p in load_prompts(path)] == ["a", "b", "c"]


def test_limit_takes_the_first_distinct_prompts(tmp_path):
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": text} for text in "abc"])
    assert [p.text for p in load_prompts(path, limit=2)] == ["a", "b"]
    with pytest.raises(ValueError, match="limit is 0"):
        load_prompts(path, limit=0)


BAD_FILES = [
    ("p.jsonl", b"", "holds no prompts; it is empty"),
    ("p.jsonl", b"\n \n", "holds no prompts; it is empty"),
    ("p.csv", b"prompt\n", "holds no prompts; it is empty"),
    ("p.csv", b"", "holds no prompts; it is empty"),
    ("p.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', r"line 2: byte 13 \(0xff\) is not UTF-8"),
    ("p.csv", "prompt\nü\n".encode("latin-1"), "line 2: byte 1 .* is not UTF-8"),
    ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON"),
    ("p.jsonl", b'[{"prompt": "a"}]', r"line 1: list .* an object such as"),
    ("p.jsonl", b'"a"', r"line 1: str 'a' found"),
    ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt": " "}', "line 3, field 'prompt': .* is empty"),
    ("p.jsonl", b'{"prompt": "a"}\n{"q": "b"}', "line 2, field 'prompt': nothing found"),
    ("p.jsonl", b'{"prompt": 7}', "line 1, field 'prompt': int 7 found"),
    ("p.jsonl", b'{"prompt": []}', "line 1, .* no message"),
    ("p.jsonl", b'{"prompt": ["a"]}', "a message is str 'a'"),
    ("p.jsonl", b'{"prompt": [{"role": "user"}]}', "a message's content is nothing"),
    ("p.jsonl", b'{"prompt": [{"content": "a"}]}', "a message's role is nothing"),
    ("p.jsonl", b'{"messages": [{"role": "assistant", "content": "a"}]}', "no message"),
    ("p.jsonl", b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
    ("p.jsonl", b'{"titel": "a", "id": 1}', "its columns are: titel, id"),
    ("p.csv", b"prompt,id\na,b,c\n", "line 2: more cells"),
    ("p.csv", b'prompt\n"a\n', "not CSV"),
    ("p.csv", b"messages\nhello\n", "line 2, field 'messages'"),
    ("p.parquet", b"PAR1 not really", "not a readable Parquet file"),
    ("p.txt", b"hello", r"ends in '.txt'; prompts are read from .jsonl"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files_are_refused_by_name_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s){path}.*{message}"):
        load_prompts(path)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_prompts(tmp_path / "nowhere.jsonl")
    path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a"}])
    with pytest.raises(ValueError, match="no column 'question'; its columns are: prompt"):
        load_prompts(path, field="question")


def test_folders_that_are_no_single_dataset_are_refused(tmp_path):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(ValueError, match="no dataset saved by save_to_disk"):
        load_prompts(tmp_path)
    data = datasets.Dataset.from_list([{"prompt": "a"}])
    datasets.DatasetDict(train=data, test=data).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(ValueError, match=r"both/train, .*both/test"):
        load_prompts(tmp_path / "both")
    assert len(load_prompts(tmp_path / "both" / "train")) == 1


def test_without_datasets_the_message_names_the_extra(tmp_path):
    script = (
        "import sys; sys.modules['datasets'] = None\n"
        "from infalign.prompts import load_prompts\n"
        f"load_prompts({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "pip install 'infalign[lm]'" in done.stderr


def test_reading_prompts_loads_neither_torch_nor_datasets():
    script = "import infalign.prompts, sys; assert not {'torch', 'datasets'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_ids_tell_content_apart_and_nothing_else():
    assert Prompt.from_text("a").id != Prompt.from_text("a ").id
    assert Prompt.from_messages(CHAT).id == Prompt.from_messages(tuple(map(dict, CHAT))).id
    assert Prompt.from_messages(CHAT).id != Prompt.from_messages(CHAT[1:]).id
    assert hash(Prompt.from_messages(CHAT)) == hash(Prompt.from_messages(CHAT))


def test_rendering_changes_the_text_of_chats_alone_and_no_id():
    plain, chat = Prompt.from_text("a"), Prompt.from_messages(CHAT)
    rendered = render_prompts([plain, chat], lambda turns: f"<{turns[-1]['content']}>")
    assert [p.text for p in rendered] == ["a", "<Hi>"]
    assert [p.id for p in rendered] == [plain.id, chat.id]


def prompts_of(count):
    return [Prompt.from_text(f"question {i}") for i in range(count)]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 60), seed=st.integers(0, 9), data=st.data())
def test_a_split_is_a_partition_that_ignores_order(count, seed, data):
    prompts = prompts_of(count)
    test_count = data.draw(st.integers(1, count - 1))
    shuffled = random.Random(0).sample(prompts, count)
    train, test = split_prompts(prompts, test_count=test_count, seed=seed)
    assert split_prompts(shuffled, test_count=test_count, seed=seed) == (train, test)
    assert len(test) == test_count
    assert {p.id for p in train} | {p.id for p in test} == {p.id for p in prompts}
    assert len(train) + len(test) == count


def test_a_fraction_never_moves_a_prompt_when_others_join():
    train, test = split_prompts(prompts_of(200), test_fraction=0.3)
    more_train, more_test = split_prompts(prompts_of(400), test_fraction=0.3)
    assert set(train) < set(more_train)
    assert set(test) < set(more_test)
    # Binomial(400, 0.3) leaves [80, 160] with probability below 1e-4; the hash is fixed anyway.
    assert 80 <= len(more_test) <= 160


def test_counts_grow_without_moving_prompts():
    prompts = prompts_of(50)
    train, test = split_prompts(prompts, test_count=10, train_count=20)
    more_train, more_test = split_prompts(prompts, test_count=20, train_count=30)
    assert more_train[:20] == train
    assert more_test[:10] == test


def test_the_seed_changes_the_split():
    splits = {tuple(split_prompts(prompts_of(20), test_count=10, seed=s)[1]) for s in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one"),
        ({"test_fraction": 0.5, "test_count": 2}, "exactly one"),
        ({"test_fraction": 1.0}, "between 0 and 1"),
        ({"test_fraction": 1e-9}, "0 for test"),
        ({"test_count": 0}, "0 for test"),
        ({"test_count": 5}, "0 for training"),
        ({"test_count": 3, "train_count": 3}, "5 prompts cannot be split into 3 .* and 3"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_prompts(prompts_of(5), **arguments)


def test_a_repeated_prompt_is_not_split():
    with pytest.raises(ValueError, match="repeat"):
        split_prompts([*prompts_of(5), prompts_of(1)[0]], test_count=2)


def test_real_instructions(tmp_path):
    path = SHARED / "alpaca_eval.parquet"
    if not path.exists():
        pytest.skip("no alpaca_eval.parquet beside the checkout")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prompts = load_prompts(path)
    # 58 models answered each of 805 instructions, each answer with the instruction in its row.
    assert len(prompts) == pd.read_parquet(path)["instruction"].nunique()
    assert "repeat an earlier one" in str(caught[0].message)


def test_real_dialogues_as_a_named_column(tmp_path):
    path = SHARED / "hh_harmless_test.jsonl.gz"
    if not path.exists():
        pytest.skip("no hh_harmless_test.jsonl.gz beside the checkout")
    unpacked = tmp_path / "hh.jsonl"
    unpacked.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(load_prompts(unpacked, field="chosen", limit=100)) == 100
    with pytest.raises(ValueError, match="its columns are: chosen, rejected"):
        load_prompts(unpacked)
