"""Several processes: what can be launched, by which configuration, and what is refused."""

import copy
import dataclasses
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from infalign.config import validate_experiment
from infalign.config.solvers import LAUNCHES, OfflineSolver
from infalign.pipeline.launching import command_of, configuration_of
from infalign.pipeline.ownership import refuse_other, saved

launch = pytest.importorskip("accelerate.commands.launch")
FILES = {how: configuration_of(OfflineSolver(kl=1.0, processes=2, accelerate=how), has_gpu=True)
         for how in LAUNCHES}  # fmt: skip
FILES["cpu"] = FILES["ddp"].with_name("cpu.yaml")


def arguments(path, *more):
    """What `accelerate launch` makes of a configuration, up to the moment of starting."""
    given = ["--config_file", str(path), *more, "-m", "some.module"]
    parsed, defaults, _ = launch._validate_launch_command(
        launch.launch_command_parser().parse_args(given)
    )
    return parsed, defaults


def environment(path, monkeypatch, processes=2):
    """The variables its launcher would set for each process."""
    parsed, defaults = arguments(path, "--num_processes", str(processes))
    for name in [name for name in os.environ if name.startswith(("FSDP_", "ACCELERATE_"))]:
        monkeypatch.delenv(name)
    if parsed.use_deepspeed:
        parsed.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return launch.prepare_deepspeed_cmd_env(parsed)[1]
    return launch.prepare_multi_gpu_env(parsed)


@pytest.mark.parametrize("how", FILES)
def test_accelerate_takes_what_is_shipped_for_what_it_says(how, monkeypatch):
    parsed, defaults = arguments(FILES[how], "--num_processes", "2")
    kinds = {"fsdp": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert defaults.distributed_type == kinds.get(how, "MULTI_GPU")
    assert (parsed.use_fsdp, parsed.use_deepspeed) == (how == "fsdp", how.startswith("zero"))
    assert parsed.num_processes == 2
    assert environment(FILES[how], monkeypatch)["ACCELERATE_MIXED_PRECISION"] == "no"


def test_fsdp_is_the_newer_one_and_wraps_the_blocks(monkeypatch):
    from accelerate.utils import FullyShardedDataParallelPlugin

    for name, value in environment(FILES["fsdp"], monkeypatch).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading is False
    assert "transformer" in str(plugin.auto_wrap_policy)
    assert "FULL" in str(plugin.state_dict_type)


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_gets_its_stage(stage, monkeypatch):
    said = environment(FILES[f"zero{stage}"], monkeypatch)
    assert said["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)
    assert said["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == "false"
    assert said["ACCELERATE_USE_DEEPSPEED"] == "true"
    if importlib.util.find_spec("deepspeed"):
        from accelerate.utils import DeepSpeedPlugin

        for name, value in said.items():
            monkeypatch.setenv(name, value)
        assert DeepSpeedPlugin().zero_stage == stage


def test_a_wrong_key_or_value_would_be_noticed(tmp_path, monkeypatch):
    """Negative controls of the dry run."""
    from accelerate.utils import FullyShardedDataParallelPlugin

    settings = yaml.safe_load(FILES["fsdp"].read_text())
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(settings | {"num_proceses": 2}))
    with pytest.raises(ValueError, match="unknown keys"):
        arguments(path)
    path.write_text(yaml.safe_dump(settings | {"distributed_type": "FDSP"}))
    with pytest.raises(ValueError, match="FDSP"):
        arguments(path)
    fsdp = settings["fsdp_config"] | {"fsdp_auto_wrap_policy": "TRANSFORMER_WRAP"}
    path.write_text(yaml.safe_dump(settings | {"fsdp_config": fsdp}))
    for name, value in environment(path, monkeypatch).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="TRANSFORMER_WRAP"):
        FullyShardedDataParallelPlugin()


def training(**changes):
    return OfflineSolver(kl=1.0, **{"processes": 2, **changes})


def test_a_single_process_needs_no_launcher():
    command = command_of(training(processes=1), "some.module", ["x"], has_gpu=True)
    assert command[1:] == ["-m", "some.module", "x"]
    assert "accelerate.commands.launch" in command_of(training(), "m", [], has_gpu=False)


def test_the_command_is_one_that_accelerate_takes():
    command = command_of(training(processes=3), "some.module", ["a", "b"], has_gpu=False)
    parsed = launch.launch_command_parser().parse_args(command[3:])
    assert (parsed.num_processes, parsed.module, parsed.training_script) == (3, True, "some.module")
    assert parsed.training_script_args == ["a", "b"], shlex.join(command)
    assert parsed.config_file.endswith("cpu.yaml")


def test_a_type_for_cpus_would_start_one_process(tmp_path):
    """Why it is refused: accelerate leaves the others to mpirun."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nuse_cpu: true"
    )
    parsed, _ = arguments(path, "--num_processes", "2")
    assert not any([parsed.multi_gpu, parsed.use_fsdp, parsed.use_deepspeed])
    assert arguments(FILES["cpu"])[0].multi_gpu


def test_several_processes_are_one_by_default():
    experiment = validate_experiment({"training": {"kind": "offline", "kl": 1.0}})
    assert (experiment.training.processes, experiment.training.accelerate) == (1, None)
    assert dataclasses.replace(experiment.training, processes=2).processes == 2


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision is bf16 .* no is needed"),
        ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "dynamo_backend is inductor"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "fsdp_version is 1"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
             "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"},
            "fsdp_cpu_ram_efficient_loading is true",
        ),
        ({"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3_init_flag is true"),
        (
            {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
             "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"},
            "zero3_save_16bit_model is true",
        ),
    ],
)  # fmt: skip
def test_settings_under_which_weights_would_be_missing_are_refused(said, says, monkeypatch):
    from infalign.training import processes

    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=says):
        processes.joined(cpu=True)


def claim(folder, experiment):
    """What a study does with its folder before anything else."""
    refuse_other(folder, experiment)
    (folder / "experiment.yaml").write_text(saved(experiment), encoding="utf-8")


def commands_of_the_page():
    """The `infalign` commands of docs/engines/ray.md, in order: what each sets."""
    page = Path(__file__).parents[2] / "docs" / "engines" / "ray.md"
    lines = re.findall(r"^infalign (?:reward|run) experiment\.yaml.*$", page.read_text(), re.M)
    return [re.findall(r"--set (\S+?)=(\S+)", line) for line in lines]


def test_one_folder_is_gone_on_with_by_all_commands_of_the_page(experiment_data, tmp_path):
    """Drawn by workers, trained by processes, and again with another number of them."""
    offline = {"kind": "offline", "kl": 0.5, "prompts_per_step": 8}
    data = experiment_data(training=offline, prompts={"train": 8, "test": 1})
    commands = [*commands_of_the_page(), [("training.processes", "4")]]
    assert len(commands) == 6
    assert any(("training.processes", "8") in command for command in commands)
    for command in commands:
        given = copy.deepcopy(data)
        for path, value in command:
            section, key = path.split(".")
            given.setdefault(section, {})[key] = yaml.safe_load(value)
        claim(tmp_path / "run", validate_experiment(given))
    with pytest.raises(ValueError, match="it differs in training"):
        refuse_other(
            tmp_path / "run", validate_experiment(data | {"training": offline | {"kl": 1}})
        )


def test_another_number_of_processes_is_another_sample_of_trl_s(experiment, tmp_path):
    trl = {"kind": "online", "engine": "trl", "kl": 0.5, "samples_per_prompt": 4}
    claim(tmp_path / "run", experiment(training=trl))
    with pytest.raises(ValueError, match="it differs in training"):
        claim(tmp_path / "run", experiment(training={**trl, "processes": 2}))


def test_an_experiment_trained_by_two_processes_is_that_of_one(experiment, tmp_path):
    """The whole way: started by accelerate, steps shared out, results written by one process."""
    import torch

    from infalign import pipeline

    offline = {"kind": "offline", "kl": 0.5, "steps": 2, "prompts_per_step": 4,
               "learning_rate": 1e-3, "checkpoint_every": 1, "measure_every": 0}  # fmt: skip
    found = []
    for count in (1, 2):
        where = {"output": str(tmp_path / str(count)), "baselines": []}
        pipeline.reward(pipeline.open_study(experiment(training=offline, **where)))
        more = {} if count == 1 else {"processes": 2, "accelerate": "ddp"}
        study = pipeline.open_study(experiment(training={**offline, **more}, **where))
        pipeline.train(study)
        home = study.folder / "train" / "infalign"
        assert (home / "adapter" / "adapter_model.safetensors").exists()
        assert [row["step"] for row in json.loads((home / "offline.json").read_text())] == [0, 1]
        found.append(torch.load(home / "offline" / "weights-000002.pt"))
    assert max(float((found[0][n] - found[1][n]).abs().max()) for n in found[0]) < 1e-5
