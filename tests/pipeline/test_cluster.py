"""The same experiment by this process and by the workers of a cluster."""

import hashlib
import socket
import subprocess
import sys

import pytest

from infalign import pipeline
from infalign.config import validate_experiment
from infalign.protocols import Sampling

pytest.importorskip("ray", reason="needs infalign[ray]")

RAY = {"kind": "ray", "workers": 2}


def contents(path):
    """Every shard, with a hash of its bytes."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*.parquet")
    }


def rewarded(experiment):
    study = pipeline.open_study(experiment)
    pipeline.reward(study)
    return study


@pytest.fixture(scope="module")
def ray_ended():
    """Ray of this process, of which one cluster is enough, ends with these tests."""
    import ray

    yield
    ray.shutdown()


def test_workers_make_the_stores_that_one_process_makes(experiment, tmp_path, ray_ended):
    same = {"policy": {"threads": 1}, "gold": None}
    rewarded(experiment(output=str(tmp_path / "alone"), **same))
    study = rewarded(experiment(output=str(tmp_path / "ray"), cluster=RAY, **same))
    for store in ("rollouts", "judged/reference"):
        made = contents(tmp_path / "ray" / store)
        assert made == contents(tmp_path / "alone" / store)
        assert {name.split("/")[0] for name in made} == {"rollouts", "rewards"}
    # What is there is there for this process too: the folder does not remember who made it.
    again = rewarded(experiment(output=str(tmp_path / "ray"), **same))
    assert (again.reference_rewards() == study.reference_rewards()).all()


def test_workers_draw_by_a_server_what_one_process_draws_by_it(
    experiment, tmp_path, make_lm, ray_ended
):
    from servers import token_server

    with token_server(make_lm(Sampling(temperature=0.8, max_new_tokens=4))) as (url, bodies):
        engine = {"kind": "openai_server", "base_urls": [url], "model": "tiny"}
        same = {"rollouts": {"k": 16, "engine": engine}, "policy": {"threads": 1}}
        for name, cluster in (("alone", None), ("ray", RAY | {"workers": 1})):
            made = experiment(output=str(tmp_path / name), cluster=cluster, **same)
            pipeline.rollout(pipeline.open_study(made))
            asked, bodies[:] = len(bodies), []
            assert asked > 0
    for store in ("rollouts", "judged/reference"):
        assert contents(tmp_path / "ray" / store) == contents(tmp_path / "alone" / store) != {}


def test_vllm_over_several_gpus_needs_as_many_of_each_worker():
    vllm = {"engine": {"kind": "vllm", "tensor_parallel_size": 2}}
    with pytest.raises(ValueError, match=r"over 2 GPUs, but cluster.gpus_per_worker is 1"):
        validate_experiment({"rollouts": vllm, "cluster": RAY | {"gpus_per_worker": 1}})
    validate_experiment({"rollouts": vllm, "cluster": RAY | {"gpus_per_worker": 2}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"workers": 0}, "cluster: workers is 0; at least 1"),
        ({"workers": 99_999_999_999}, "cluster: workers is 99999999999; at most 10000"),
        ({"cpus_per_worker": 10_001}, "cluster: cpus_per_worker is 10001; at most"),
        ({"gpus_per_worker": 1e300}, "cluster: gpus_per_worker is 1e[+]300; at most"),
        ({"cpus_per_worker": 0}, "cluster: cpus_per_worker is 0"),
        ({"gpus_per_worker": 1.5}, "cluster: gpus_per_worker is 1.5"),
        ({"address": "ray://head:10001"}, "cluster: address is 'ray://head:10001'"),
        ({"adress": "auto"}, "cluster.adress: unknown; did you mean 'address'"),
        ({"kind": "slurm"}, "cluster.kind: 'slurm' is not known"),
    ],
)
def test_an_impossible_cluster_is_refused_in_the_file(section, message):
    with pytest.raises(ValueError, match=message):
        validate_experiment({"cluster": {"kind": "ray"} | section})


def test_a_cluster_is_refused_where_nothing_is_sampled():
    with pytest.raises(ValueError, match="cluster is given, but policy is choice_lm"):
        validate_experiment({"policy": "choice_lm", "cluster": "ray"})


def test_the_bare_kind_is_a_cluster_of_this_machine():
    cluster = validate_experiment({"cluster": "ray"}).cluster
    assert (cluster.address, cluster.workers) == ("local", 2)


def refused(address):
    """In a process of its own, which no other test has connected."""
    code = (
        "import sys; from infalign.integrations.ray import connect\n"
        "try: connect(sys.argv[1])\n"
        "except OSError as error: print(error); sys.exit(2)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, check=False
    )


def test_an_address_where_nothing_answers_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    run = refused(f"127.0.0.1:{port}")
    assert run.returncode == 2
    assert f"127.0.0.1:{port}, but nothing answers there" in run.stdout


def test_without_ray_the_extra_is_named(monkeypatch):
    from infalign.pipeline import cluster

    monkeypatch.setattr("infalign.integrations.ray.cluster.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'infalign\[ray\]'"):
        cluster.check_cluster(validate_experiment({"cluster": "ray"}).cluster)
    cluster.check_cluster(None)
