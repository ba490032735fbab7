"""`infalign decode` on prompt files: a tiny model, real files, real refusals."""

import io
import json
import sys

import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")

REWARD = """
import math


def vowels(prompts, responses):
    return [[sum(c in "aeiou" for c in text) / 9 for text in row] for row in responses]


def odd(prompts, responses):
    return [[math.nan for _ in row] for row in responses]
"""
WORDS = ["tender", "lazy", "lush", "cliche", "story"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, tokenizer, tiny_llama):
    folder = tmp_path_factory.mktemp("shop")
    tiny_llama(len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "my_rewards.py").write_text(REWARD)
    lines = [json.dumps({"prompt": f"it is a {word}"}) for word in WORDS]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    (folder / "empty.jsonl").write_text("")
    (folder / "wrong.jsonl").write_text('{"colour": "red"}')
    (folder / "long.jsonl").write_text("\n".join([lines[0], json.dumps({"prompt": "film " * 90})]))
    turns = [{"role": "user", "content": "Why?"}]
    (folder / "chat.jsonl").write_text(json.dumps({"prompt": turns}))
    (folder / "experiment.yaml").write_text(
        "output: run\n"
        "prompts: {path: prompts.jsonl, train: 3, test: 2}\n"
        "policy: {kind: causal_lm, model: model, max_new_tokens: 4, dtype: float32}\n"
        "reward: {kind: callable, function: 'my_rewards:vowels'}\n"
        "procedure: {kind: best_of_n, n: 3}\n"
        "training: {kind: fit, kl: 0.5}\n"
    )
    return folder


@pytest.fixture
def decode(shop, tmp_path, monkeypatch, infalign_command):
    """`infalign decode` with a model and few tokens; later options win."""
    monkeypatch.chdir(shop)
    sys.modules.pop("my_rewards", None)

    def run(*arguments, source="prompts.jsonl"):
        few = ("--model", "model", "--max-new-tokens", "4", "--reward", "my_rewards:vowels")
        return infalign_command("decode", source, *few, *arguments)

    return run


BEST = ("--procedure", "best_of_n", "--n", "4")


def test_answers_are_written_and_not_made_twice(decode, tmp_path):
    path = tmp_path / "answers.parquet"
    code, out, err = decode("-o", str(path), *BEST)
    assert (code, out) == (0, f"{path}\n")
    assert "5 answers by best-of-4: 20 responses" in err
    rows = pq.read_table(path).to_pylist()
    assert [row["prompt"] for row in rows] == [f"it is a {word}" for word in WORDS]
    assert all(row["reward"] == max(row["rewards"]) for row in rows)
    assert sum(row["responses"] for row in rows) == 20
    assert list(tmp_path.iterdir()) == [path]
    code, out, err = decode("-o", str(path), *BEST)
    assert (code, out) == (0, f"{path}\n")
    assert "all 5 answers are there already" in err
    code, _, err = decode("-o", str(path), "--procedure", "best_of_5")
    assert code == 2
    assert 'procedure is "best-of-4" there and "best-of-5" here' in err


def test_a_budget_stops_and_the_same_file_comes_of_going_on(decode, tmp_path):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    options = (*BEST, "--chunk", "2")
    assert decode("-o", str(whole), *options)[0] == 0
    code, out, err = decode("-o", str(path), *options, "--max-responses", "12")
    assert (code, out) == (2, "")
    assert "budget of 12 responses ends here: 8 are spent" in err
    assert "1 prompts" not in err
    assert f"kept in {path}.parts" in err
    code, _, err = decode("-o", str(path), *options, "--max-tokens-total", "80")
    assert code == 0
    assert "5 answers by best-of-4: 20 responses" in err
    assert path.read_bytes() == whole.read_bytes()
    code, _, err = decode("-o", str(path), *options, "--seed", "1")
    assert code == 2
    assert "seed is 0 there and 1 here" in err


def test_without_a_file_answers_are_lines_of_json(decode, tmp_path):
    code, out, err = decode(*BEST)
    path = tmp_path / "answers.jsonl"
    decode("-o", str(path), *BEST)
    assert code == 0
    assert out == path.read_text()
    assert "5 answers" in err


@pytest.mark.parametrize(
    "given", [b"it is a tender\n\nit is a lush\n", b'{"prompt": "it is a tender"}\n{"prompt": "x"}']
)
def test_prompts_may_come_by_a_pipe(decode, monkeypatch, given):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    code, out, _ = decode("--procedure", "majority_vote(3)", source="-")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert rows[0]["prompt"] == "it is a tender"
    assert len(rows) == 2
    assert sum(rows[0]["details"]["votes"].values()) == 3


@pytest.mark.parametrize(
    "procedure",
    [
        "mcmc(0.5, steps=3)",
        "blockwise_best_of_2(block=2)",
        "block_search(2, 2, 2)",
        "weighted_vote(3, 0.5)",
    ],
)
def test_what_looks_inside_a_response_runs_too(decode, procedure):
    code, out, _ = decode("--procedure", procedure, "--limit", "2")
    assert (code, len(out.splitlines())) == (0, 2)


def test_quantiles_on_demand(decode):
    code, out, _ = decode("--procedure", "soft_best_of_2(0.1)", "--calibrate", "8", "--limit", "1")
    row = json.loads(out)
    assert (code, row["responses"]) == (0, 10)
    assert 0 <= row["quantile"] <= 1


def test_chat_prompts_are_rendered(decode):
    code, out, _ = decode("--procedure", "identity", source="chat.jsonl")
    assert code == 0
    assert json.loads(out)["prompt"] == "<|im_start|>user\nWhy?<|im_end|>\n"


def test_a_stop_string_may_be_typed(decode):
    code, out, _ = decode(*BEST, "--stop", "\\n", "--stop", "e", "--limit", "3")
    assert code == 0
    assert not any(
        "e" in text for line in out.splitlines() for text in json.loads(line)["candidates"]
    )


@pytest.fixture
def nothing_loads(monkeypatch):
    """What is refused must be refused before a model is loaded."""
    from infalign.policies import CausalLM

    def refuse(*arguments, **options):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(CausalLM, "from_pretrained", refuse)


@pytest.mark.parametrize(
    ("source", "arguments", "said"),
    [
        ("nowhere.jsonl", BEST, "no prompt file at nowhere.jsonl"),
        ("empty.jsonl", BEST, "holds no prompts"),
        ("wrong.jsonl", BEST, "its columns are: colour"),
        ("prompts.jsonl", (*BEST, "--field", "text"), "no column 'text'"),
        ("prompts.jsonl", (*BEST, "--limit", "0"), "limit is 0"),
        ("my_rewards.py", BEST, "prompts are read from"),
        ("prompts.jsonl", (), "nothing says how to answer"),
        ("prompts.jsonl", ("--procedure", "best_off_4"), "Did you mean 'best_of_n'"),
        ("prompts.jsonl", ("--procedure", "best_of_n", "--n", "0"), "n is 0"),
        ("prompts.jsonl", ("--procedure", "qalign", "--beta", "0"), "beta is 0"),
        ("prompts.jsonl", ("--procedure", "qalign", "--beta", "nan"), "beta is nan"),
        ("prompts.jsonl", ("--procedure", "qalign", "--steps", "-1"), "-1"),
        ("prompts.jsonl", ("--procedure", "qalign", "--n", "4"), "Unknown setting 'n'"),
        ("prompts.jsonl", ("--procedure", "soft_best_of_4(0.1)"), "give --calibrate"),
        ("prompts.jsonl", (*BEST, "--calibrate", "1"), "at least 2"),
        ("prompts.jsonl", (*BEST, "--chunk", "0"), "chunk is 0"),
        ("prompts.jsonl", (*BEST, "--max-responses", "0"), "responses is 0"),
        ("prompts.jsonl", (*BEST, "--temperature", "0"), "temperature is 0"),
        ("prompts.jsonl", (*BEST, "--max-new-tokens", "0"), "max_new_tokens is 0"),
        ("prompts.jsonl", (*BEST, "--reward", "my_rewards:vowel"), "could not be imported"),
        ("prompts.jsonl", (*BEST, "--reward", "nowhere:f"), "could not be imported"),
        ("prompts.jsonl", (*BEST, "--reward", "vowels"), "no such folder"),
        ("prompts.jsonl", (*BEST, "--reward", "embedded:golden"), "no embedded reward"),
        ("prompts.jsonl", (*BEST, "--label", "1"), "--label chooses"),
        ("prompts.jsonl", (*BEST, "-o", "answers.csv"), "written as .parquet or .jsonl"),
        ("prompts.jsonl", (*BEST, "--set", "a=1"), "--set changes an experiment file"),
        ("prompts.jsonl", (*BEST, "--tokenizer", "model"), "give --server"),
        ("prompts.jsonl", (*BEST, "--api", "rest"), "completions and chat"),
        ("prompts.jsonl", (*BEST, "--experiment", "experiment.yaml"), "--model came beside"),
        ("experiment.yaml", BEST, "goes with a file of prompts"),
    ],
)
def test_slips_are_refused_before_a_model_is_loaded(decode, nothing_loads, source, arguments, said):
    code, out, err = decode(*arguments, source=source)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.parquet", "a.json", "a.CSV"])
def test_an_experiment_is_not_trained_into_a_file_of_answers(
    infalign_command, shop, monkeypatch, nothing_loads, name
):
    monkeypatch.chdir(shop)
    code, out, err = infalign_command("decode", "experiment.yaml", "-o", name)
    said, stem = " ".join(err.split()), name.partition(".")[0]
    assert (code, out) == (2, "")
    assert f"`infalign decode experiment.yaml > {stem}.jsonl`" in said
    assert f"`infalign decode PROMPTS --experiment experiment.yaml -o {stem}.parquet`" in said
    assert not (shop / name).exists()


def test_the_help_says_what_o_is_of_an_experiment(infalign_command):
    said = " ".join(infalign_command("decode", "--help")[1].split())
    assert "-o is then the experiment's folder" in said


def test_a_reward_is_needed_where_one_chooses(infalign_command, shop, monkeypatch, nothing_loads):
    monkeypatch.chdir(shop)
    code, _, err = infalign_command("decode", "prompts.jsonl", "--model", "model", *BEST)
    assert code == 2
    assert "needs a reward" in err
    code, _, err = infalign_command("decode", "prompts.jsonl", *BEST)
    assert code == 2
    assert "nothing says who answers" in err


def test_a_prompt_beyond_the_context_window_is_named_before_work(decode, tmp_path):
    code, out, err = decode(*BEST, "-o", str(tmp_path / "a.parquet"), source="long.jsonl")
    assert (code, out) == (2, "")
    assert "prompt 1 ('film film" in err
    assert "context window of 64" in err
    assert list(tmp_path.iterdir()) == []


def test_a_reward_that_is_no_number_names_the_prompt_and_keeps_the_rest(decode, tmp_path):
    path = tmp_path / "a.parquet"
    code, _, err = decode(*BEST, "--reward", "my_rewards:odd", "-o", str(path))
    assert code == 2
    assert "is nan; candidates cannot be ranked" in err
    assert "kept in" in err


def test_a_model_that_is_none_is_refused(decode, tmp_path):
    code, _, err = decode(*BEST, "--model", str(tmp_path))
    assert code == 2
    assert "no causal language model" in err


def test_an_experiment_lends_its_policy_reward_and_procedure(infalign_command, shop, monkeypatch):
    monkeypatch.chdir(shop)
    lent = ("decode", "prompts.jsonl", "--experiment", "experiment.yaml")
    code, out, err = infalign_command(*lent, "--policy", "reference", "--limit", "2")
    assert code == 0
    assert [len(json.loads(line)["candidates"]) for line in out.splitlines()] == [3, 3]
    code, _, err = infalign_command(*lent)
    assert code == 2
    assert "not trained yet" in err
    code, _, err = infalign_command(*lent, "--policy", "rwa")
    assert code == 2
    assert "there are reference, infalign" in err


@pytest.fixture
def upstream():
    pytest.importorskip("openai")
    import upstreams

    counting = upstreams.Counting()
    with upstreams.running(counting.app()) as url:
        counting.url = f"{url}/v1"
        yield counting


@pytest.mark.parametrize("source", ["prompts.jsonl", "chat.jsonl"])
def test_a_server_answers(infalign_command, shop, monkeypatch, upstream, source):
    monkeypatch.chdir(shop)
    served = ("--server", upstream.url, "--model", "counting", "--reward", "upstreams:worth")
    code, out, err = infalign_command("decode", source, *served, *BEST, "--max-new-tokens", "9")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0, err
    assert all(
        row["reward"] == max(row["rewards"]) == max(map(_worth, row["candidates"])) for row in rows
    )
    is_chat = "messages" in upstream.bodies[0]
    assert is_chat == (source == "chat.jsonl")
    code, _, err = infalign_command("decode", source, *served, "--procedure", "qalign")
    assert code == 2
    assert "Traceback" not in err


def _worth(text):
    return float(text.rsplit("=", 1)[1])


def test_a_server_of_an_unknown_kind_is_refused(decode):
    code, _, err = decode(*BEST, "--server", "http://127.0.0.1:1/v1", "--server-kind", "vlm")
    assert code == 2
    assert "vllm, sglang" in err


def test_a_tokenizer_speaks_as_the_model_itself_does(shop):
    """What a server of token ids is told must be what the local policy is conditioned on."""
    from infalign.cli.answer.members import _codec
    from infalign.policies import CausalLM
    from infalign.protocols import Sampling

    sampling = Sampling(max_new_tokens=4, stop=("e",))
    local = CausalLM.from_pretrained(shop / "model", sampling, dtype="float32").codec
    remote = _codec(str(shop / "model"), sampling)
    assert remote.stop_ids == local.stop_ids
    assert remote.encode("it is a film") == local.encode("it is a film")
