"""Several processes: what is refused before long work, of the experiment and of its files."""

import importlib.util
import json

import pytest
import yaml

from infalign.config import validate_experiment
from infalign.config.solvers import OfflineSolver, OnlineSolver
from infalign.pipeline.launching import configuration_of, refuse_unlaunchable

pytest.importorskip("accelerate")


def training(**changes):
    return OfflineSolver(kl=1.0, **{"processes": 2, **changes})


FILES = {how: configuration_of(training(accelerate=how), has_gpu=True)
         for how in ("fsdp", "zero3")}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (None, "there is no file"),
        ("a: [", "not YAML"),
        ({"num_processes": 2}, "no distributed_type"),
        ({"distributed_type": "MULTI_GPU", "num_machines": 2}, "num_machines is 2; 1 is needed"),
        (yaml.safe_load(FILES["fsdp"].read_text()), "no GPU is found; `ddp` is needed"),
        ({"distributed_type": "FSDP"}, "fsdp_config.fsdp_version is left out in .*; 2 is needed"),
        ({"distributed_type": "FSDP", "fsdp_config": {"version": 1}}, "fsdp_version is 1"),
        ({"distributed_type": "FSDP", "fsdp_config": [1]}, "fsdp_config is .1.; keys and values"),
        (
            {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}},
            "fsdp_cpu_ram_efficient_loading is left out",
        ),
        ({"distributed_type": "NO"}, "distributed_type is 'NO'; one of MULTI_GPU, FSDP, DEEPSP"),
        ("distributed_type: NO", "distributed_type is False; one of"),
        ({"distributed_type": "MULTI_CPU"}, "MULTI_GPU is right on CPUs too"),
        ({"distributed_type": ["a"]}, "distributed_type is ..a..; one of"),
        ({"distributed_type": "MULTI_GPU", "num_machines": None}, "num_machines is None; 1 is n"),
        ({"distributed_type": "MULTI_GPU", "num_machines": "two"}, "num_machines is 'two'; 1 is"),
        ({"distributed_type": "MULTI_GPU", "mixed_precision": "bf16"}, "bf16 in .*; no is needed"),
        ("distributed_type: MULTI_GPU\nmixed_precision: no", "false .which YAML.* in quotes"),
        ({"distributed_type": "MULTI_GPU", "num_proceses": 2}, "cannot read it: .*num_proceses"),
        (
            {"distributed_type": "MULTI_GPU", "dynamo_config": {"dynamo_backend": "INDUCTOR"}},
            "dynamo_backend is inductor",
        ),
        (
            {"distributed_type": "MULTI_GPU", "compute_environment": "AMAZON_SAGEMAKER"},
            "LOCAL_MACHINE is needed",
        ),
        (
            {"distributed_type": "MULTI_GPU", "parallelism_config": {"tp_size": 2}},
            "parallelism_config is .*; nothing is needed",
        ),
        (
            {"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}},
            "zero3_init_flag is left out in .*; false is needed",
        ),
        (
            {"distributed_type": "DEEPSPEED", "deepspeed_config": {"deepspeed_config_file": "a"}},
            "deepspeed_config_file is 'a'; none is needed",
        ),
    ],
)
def test_what_cannot_be_launched_is_refused(settings, says, tmp_path):
    path = tmp_path / "mine.yaml"
    if settings is not None:
        path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    with pytest.raises(ValueError, match=says):
        refuse_unlaunchable(training(accelerate=str(path)), has_gpu=False)


@pytest.mark.skipif(bool(importlib.util.find_spec("deepspeed")), reason="DeepSpeed is installed")
def test_deepspeed_that_is_not_there_is_asked_for():
    with pytest.raises(ImportError, match="pip install deepspeed"):
        refuse_unlaunchable(training(accelerate="zero2"), has_gpu=True)


def test_the_command_line_itself_is_started_once(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"--set training\.processes=2"):
        refuse_unlaunchable(training(processes=1), has_gpu=False)


def test_what_can_be_launched_is_not_refused():
    refuse_unlaunchable(training(), has_gpu=False)
    refuse_unlaunchable(training(), has_gpu=True, gpus=2)
    refuse_unlaunchable(training(accelerate="fsdp"), has_gpu=True, gpus=2)
    refuse_unlaunchable(training(processes=1), has_gpu=False)
    if importlib.util.find_spec("deepspeed"):
        refuse_unlaunchable(training(accelerate="zero3"), has_gpu=True, gpus=2)


@pytest.mark.parametrize(
    ("processes", "chosen", "says"),
    [
        (8, {}, "training.processes is 8, but this machine has 4 GPUs; at most 4 is needed"),
        (3, {"gpu_ids": "0,2"}, r"4 GPUs, of which .*mine.yaml names 2 \(gpu_ids\); at most 2"),
        (2, {"gpu_ids": 0}, "gpu_ids is 0; 'all', or"),
        (2, {"use_cpu": True}, "use_cpu is True; false is needed"),
    ],
)
def test_each_process_has_a_gpu_of_its_own(processes, chosen, says, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"distributed_type": "MULTI_GPU", **chosen}))
    with pytest.raises(ValueError, match=says):
        refuse_unlaunchable(
            training(processes=processes, accelerate=str(path)), has_gpu=True, gpus=4
        )


def test_trl_is_not_sharded_by_a_file_of_the_user_s_either():
    """The names fsdp and zero3 are refused as the experiment is read; here the same as files."""
    for how, says in (("fsdp", "distributed_type is 'FSDP'"), ("zero3", "zero_stage is '3'")):
        trl = OnlineSolver(kl=1.0, engine="trl", processes=2, accelerate=str(FILES[how]))
        with pytest.raises(ValueError, match=f"{says}.*engine is trl"):
            refuse_unlaunchable(trl, has_gpu=True, gpus=2)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"kind": "fit", "processes": 2}, "processes is 2, but this solver .* 1 is needed"),
        ({"kind": "online", "processes": 2}, "`kind: offline`"),
        ({"kind": "offline", "processes": 0}, "at least 1"),
        ({"kind": "offline", "accelerate": "fsdp"}, "accelerate is fsdp, but processes is 1"),
        ({"kind": "offline", "processes": 2, "accelerate": "zero4"}, "ddp, fsdp, zero2, zero3"),
        ({"kind": "offline", "processes": 2, "prompts_per_step": 3}, "a multiple of 2"),
        (
            {"kind": "online", "engine": "trl", "processes": 2, "accelerate": "fsdp"},
            "accelerate is fsdp, but engine is trl",
        ),
        ({"kind": "offline", "processes": 3}, "prompts.train = 64.*: 63 is needed, a multiple"),
        ({"kind": "offline", "processes": True}, "training.processes: True found"),
        (
            {"kind": "online", "engine": "trl", "processes": 2, "prompts_per_step": 3,
             "samples_per_prompt": 3},
            r"prompts_per_step is 3, but processes is 2.* \(3 to each.* 2 or 4 is needed",
        ),
        (
            {"kind": "online", "engine": "trl", "processes": 5, "samples_per_prompt": 4},
            "prompts.train = 64, but processes is 5.*prompts_per_step: 60 is needed",
        ),
    ],
)  # fmt: skip
def test_an_experiment_that_several_cannot_train_is_refused_when_read(section, says):
    data = {"training": {"kl": 1.0, **section}, "prompts": {"train": 64}}
    with pytest.raises(ValueError, match=says):
        validate_experiment(data)


def test_samples_may_be_shared_out_where_prompts_cannot():
    trl = {"kind": "online", "engine": "trl", "kl": 1.0, "processes": 2, "prompts_per_step": 3}
    assert (
        validate_experiment({"training": trl | {"samples_per_prompt": 4}}).training.processes == 2
    )
