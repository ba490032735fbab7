"""Two processes train what one does; only the main one writes; a killed one hangs nobody."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))
import many  # noqa: E402
from tables import table  # noqa: E402

import infalign.training  # noqa: E402
from infalign.training import Descent, Exact, processes  # noqa: E402

CONFIGS = Path(infalign.training.__file__).parent / "accelerate"
EQUAL = 1e-5
"""Largest difference of any trained parameter."""


def launch(model, folder, what):
    """Runs `many.py` in two processes, as a user would; returns the exit code and what was said."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(CONFIGS / "cpu.yaml"), many.__file__]
    done = subprocess.run(
        [*command, str(model), str(folder), what],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def apart(one, other):
    """Largest absolute difference of any parameter."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer, tiny_llama):
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def killed(model, folder):
    """A run whose second process was killed: how the launcher ended, and what was said."""
    done = launch(model, folder, "killed")
    shutil.copytree(folder / "killed", folder / "killed too")
    return done


@pytest.fixture(scope="module")
def seen(model, folder, killed):
    """What each of two processes saw; the killed run is resumed among the rest."""
    code, said = launch(model, folder, "all")
    assert code == 0, said
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    """The same by one process."""
    home = tmp_path_factory.mktemp("alone")
    return {name: many.trained(model, many.SOLVERS[name], home / name) for name in many.SOLVERS}


@pytest.mark.parametrize("name", many.SOLVERS)
def test_two_processes_end_where_one_does(name, seen, alone, model):
    result, weights = alone[name]
    start = many.weights_of(many.policy_of(model))
    assert apart(weights, start) > 100 * EQUAL  # there is something to compare
    for rank in seen:
        assert apart(rank[name]["weights"], weights) < EQUAL
        assert (rank[name]["steps"], rank[name]["stopped"]) == (result.steps, result.stopped)
    assert apart(seen[0][name]["weights"], seen[1][name]["weights"]) == 0
    for one, other in zip(seen[0][name]["rows"], result.rows, strict=True):
        assert one.keys() == other.keys()
        assert one == pytest.approx(other, abs=1e-3, rel=1e-3)


def test_the_run_that_stops_early_does_so_because_of_what_it_measured(alone):
    result, _ = alone["stopped"]
    assert result.stopped == "target_kl"
    assert result.steps < many.STOPPING.steps


def test_without_a_folder_it_is_the_same_run(seen):
    assert apart(seen[0]["nowhere"]["weights"], seen[0]["at once"]["weights"]) == 0


def test_the_same_prompts_for_every_process_would_be_noticed(seen, alone):
    """Negative control."""
    _, weights = alone["at once"]
    assert apart(seen[0]["duplicated"]["weights"], weights) > 100 * EQUAL


def test_only_the_main_process_writes_and_calls_back(seen, folder, alone):
    main, other = (rank["accumulated"] for rank in seen)
    assert main["called"] == list(range(6))
    assert other["called"] == []
    assert main["kept"] == other["kept"] == [2, 4, 6]
    home = folder / "accumulated"
    assert {p.name for p in home.glob("*") if p.is_file()} == {
        "run.json", "log.jsonl", "weights-000002.pt", "weights-000004.pt", "weights-000006.pt",
    }  # fmt: skip
    assert len((home / "log.jsonl").read_text().splitlines()) == 6


def test_the_death_of_one_process_ends_the_others_and_loses_nothing(killed, seen, folder):
    code, said = killed
    assert code not in (0, None)
    assert "SIGKILL" in said
    assert not (folder / "killed" / "checkpoint-6.partial").exists()
    assert apart(seen[0]["resumed"]["weights"], seen[0]["accumulated"]["weights"]) == 0


def test_one_process_goes_on_where_two_were(seen, alone, model, folder):
    """Nothing of a run's identity depends on how many processes there are: it is over here too."""
    result, weights = many.trained(model, many.SOLVERS["accumulated"], folder / "accumulated")
    assert result.steps == 6
    assert apart(weights, seen[0]["accumulated"]["weights"]) == 0


def test_one_process_goes_on_in_the_middle_of_what_two_began(killed, alone, model, folder):
    home = folder / "killed too"
    assert list(home.glob("checkpoint-[24]"))
    assert not (home / "weights-000006.pt").exists()
    result, weights = many.trained(model, many.SOLVERS["accumulated"], home)
    assert [row["step"] for row in result.rows] == list(range(6))
    assert apart(weights, alone["accumulated"][1]) < EQUAL


@pytest.mark.parametrize(
    ("files", "environment", "says"),
    [
        (["optimizer.pt"], {"ACCELERATE_USE_FSDP": "true"}, "under ddp or one process, .* is fsdp"),
        (["optimizer.bin"], {}, "under fsdp, and this is ddp or one process"),
        (
            ["global_step2/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"],
            {"ACCELERATE_USE_DEEPSPEED": "true", "WORLD_SIZE": "2"},
            "under zero2 with 1 processes, and this is zero2 with 2 processes",
        ),
    ],
)
def test_an_optimiser_that_would_be_lost_is_not_gone_on_from(
    files, environment, says, tmp_path, monkeypatch
):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says):
        processes.refuse_other_sharding(tmp_path)


def test_a_launcher_s_variable_that_is_no_count_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "abc")
    with pytest.raises(ValueError, match="WORLD_SIZE is 'abc'; the number of processes"):
        processes.started()


needs_trl = pytest.mark.skipif(not importlib.util.find_spec("trl"), reason="needs TRL")


@needs_trl
def test_trl_in_two_processes_ends_where_one_does_given_the_responses(seen, model, tmp_path):
    """TRL's batches, rewards, advantages, loss and updates; only `generate` is not its own."""
    one = many.by_trl(model, tmp_path, is_forced=True)
    assert apart(one["weights"], many.weights_of(many.policy_of(model))) > 100 * EQUAL
    for rank in seen:
        assert apart(rank["trl"]["weights"], one["weights"]) < EQUAL
    assert seen[0]["trl"]["kept"] == one["kept"] == [2, 4]
    for here, there in zip(seen[0]["trl"]["rows"], one["rows"], strict=True):
        timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in (here, there)]
        assert timeless[0] == pytest.approx(timeless[1], abs=1e-3, rel=1e-3)


@needs_trl
def test_with_its_own_responses_trl_keeps_its_processes_equal_and_nothing_more(seen):
    """Each process draws its own: another number of them is another sample. A negative control."""
    main, other = (rank["trl free"]["weights"] for rank in seen)
    assert apart(main, other) == 0
    assert apart(main, seen[0]["trl"]["weights"]) > 100 * EQUAL


def test_a_sharded_policy_scores_by_all_its_weights(seen):
    """FSDP2 knows `forward` alone; body and head are asked within it, and `whole` for the rest."""
    for rank in seen:
        found = rank["sharded"]
        assert found["shards"] == "DTensor"
        assert found["log_prob"] < 1e-4
        assert found["gradient"] < 1e-5 * found["size"]
        assert found["size"] > 1
        assert found["same samples"]
        assert found["weights"] == 0


def test_prompts_that_cannot_be_shared_out_are_refused_by_every_process(seen):
    for rank in seen:
        assert "prompts_per_step is 3" in rank["refused"]
        assert "Give 2 or 4" in rank["refused"]


def test_shares_multiply_to_the_step():
    for per_step, per_pass, count in [(8, 8, 1), (8, 3, 2), (12, 4, 3), (5, 2, 1), (2, 8, 2)]:
        size, passes = processes.shares(per_step, per_pass, count)
        assert size * passes * count == per_step
        assert size <= per_pass


def test_a_solver_for_one_process_refuses_several(monkeypatch):
    from test_resume import counts, problem

    monkeypatch.setenv("WORLD_SIZE", "2")
    policy = table(counts() / counts().sum(1, keepdims=True))
    with pytest.raises(ValueError, match="2 processes were started, and exact trains in one"):
        Exact(Descent(2)).train(policy, problem(), rng=np.random.default_rng(0))
