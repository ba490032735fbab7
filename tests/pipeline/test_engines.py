"""Reference rollouts drawn by an engine: the same law, or a refusal before any of them."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openai")
pytest.importorskip("torch")

from infalign import pipeline
from infalign.pipeline import build
from infalign.protocols import Sampling
from infalign.training.fit import stored_log_prob
from servers import token_server

sys.path.insert(0, str(Path(__file__).parents[1] / "policies"))
from fake_vllm import fake_vllm

LAW = Sampling(temperature=0.8, max_new_tokens=4)


class Heard:
    """Keeps what a pipeline says."""

    def __init__(self):
        self.lines = []

    def __getattr__(self, name):
        from infalign.pipeline.show import Silent

        return getattr(Silent(), name)

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def study(experiment):
    """Makes studies whose reference rollouts an engine draws, and what they say."""

    def make(engine, **changes):
        heard = Heard()
        return pipeline.open_study(
            experiment(rollouts={"k": 16, "engine": engine}, **changes), heard
        ), heard

    return make


def at(url, **changes):
    return {"kind": "openai_server", "base_urls": [url], "model": "tiny", "retries": 0} | changes


def require_local_law(study):
    """Rollouts are of the policy's tokens, with the policy's own log-probabilities."""
    prompts = study.prompts["train"]
    rows = study.store.responses(prompts, 16)
    local = study.policy.reference_log_prob([prompt.text for prompt in prompts], rows)
    stored = np.array([[response.log_prob for response in row] for row in rows])
    np.testing.assert_array_equal(stored, local)


def test_a_server_that_tells_tokens_draws_what_is_fitted(study, make_lm):
    with token_server(make_lm(LAW)) as (url, bodies):
        made, heard = study(at(url))
        made.check()
        assert bodies == []  # nothing is asked before there is something to draw
        made.roll_out()
        (line,) = [line for line in heard.lines if "log-probabilities" in line]
        assert "agree" in line
        require_local_law(made)
        assert all(body["top_k"] == -1 and body["top_p"] == 1.0 for body in bodies)
        assert {body["temperature"] for body in bodies[-10:]} == {0.8}  # the check's are hotter too
        assert {body["max_tokens"] for body in bodies} == {4}
        drawn = len(bodies)
        made.roll_out()
        assert len(bodies) == drawn  # all is there
    pipeline.reward(made)  # the server is gone, and is not needed
    assert np.isfinite(stored_log_prob(made.problem("infalign"))).all()


def test_a_server_of_another_model_is_refused_before_the_first_rollout(study, make_lm):
    policy, other = make_lm(LAW), make_lm(Sampling(1.0, 4), seed=1)
    with token_server(policy, report=other) as (url, _):
        made, _ = study(at(url))
        with pytest.raises(ValueError, match=r"differ .* nats per token .* another model"):
            made.roll_out()
    assert made.store.prompt_ids == ()


def test_log_probabilities_said_to_be_of_another_law_are_noticed(study, make_lm):
    with token_server(make_lm(LAW)) as (url, _):
        made, _ = study(at(url, log_probs="sampling"))
        with pytest.raises(ValueError, match=r"of another law .*log_probs"):
            made.roll_out()


def test_a_server_that_ignores_stops_is_refused(study, make_lm):
    def go_on(choice):
        choice["token_ids"] = [2, 5]
        choice["logprobs"] = None

    with token_server(make_lm(LAW), go_on) as (url, _):
        made, _ = study(at(url))
        with pytest.raises(ValueError, match="goes on after a token that ends"):
            made.roll_out()


def test_a_real_server_draws_what_online_training_is_calibrated_by(study, served, workshop):
    engine = at(served.url, server="transformers", model=served.model)
    online = {"kind": "online", "kl": 0.5, "steps": 2}
    made, heard = study(engine, training=online, evaluate={"samples": 8, "ns": [1, 2, 4, 8]})
    pipeline.calibrate(made)
    assert any("checked only by how many tokens" in line for line in heard.lines)
    assert made.calibration.k == 16


def test_vllm_in_this_process_draws_with_the_policys_own_conventions(
    study, make_lm, monkeypatch, workshop
):
    loaded = []
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(make_lm(LAW), loaded))
    made, heard = study({"kind": "vllm", "gpu_memory_utilization": 0.3})
    made.roll_out()
    require_local_law(made)
    assert "agree" in heard.lines[0]
    assert loaded[0]["model"] == str(workshop / "model")
    assert loaded[0]["gpu_memory_utilization"] == 0.3


def test_the_store_says_who_drew(study, make_lm, tmp_path):
    with token_server(make_lm(LAW)) as (url, _):
        made, _ = study(at(url))
        local = build.policy_of(made.experiment.policy, None)
        assert made.drawer.fingerprint != local.fingerprint
        assert made.drawer.fingerprint == study(at(url))[0].drawer.fingerprint
        revised, _ = study(at(url, revision="tuned"), output=str(tmp_path / "other"))
        assert revised.drawer.fingerprint != made.drawer.fingerprint


def test_a_run_goes_on_when_its_server_has_moved(study, make_lm):
    with token_server(make_lm(LAW)) as (url, _):
        study(at(url))[0].roll_out()
    moved, _ = study(at("http://elsewhere:8000/v1", patience=9.0))
    moved.check()
    assert len(moved.store.prompt_ids) == 5
    with pytest.raises(ValueError, match="differs in rollouts"):
        study(at("http://elsewhere:8000/v1", revision="tuned"))


def without(monkeypatch, package):
    """As where a package was never installed, and nothing that imports it was imported."""
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith("infalign.policies.openai_")]:
        monkeypatch.delitem(sys.modules, name)


def require_goes_on(study, engine, elsewhere):
    """All later stages open the stores; what is not yet drawn names the remedy."""
    reopened, _ = study(engine)
    reopened.roll_out()  # all is there: nothing is asked
    pipeline.reward(reopened)
    assert np.isfinite(stored_log_prob(reopened.problem("infalign"))).all()
    unfinished, _ = study(engine, output=str(elsewhere))
    with pytest.raises(ImportError, match=r"pip install 'infalign\[(server|vllm)\]'"):
        unfinished.roll_out()


def test_what_a_server_drew_goes_on_without_the_client(study, make_lm, monkeypatch, tmp_path):
    with token_server(make_lm(LAW)) as (url, _):
        study(at(url))[0].roll_out()
        without(monkeypatch, "openai")
        require_goes_on(study, at(url), tmp_path / "other")


def test_what_vllm_drew_goes_on_where_it_is_not_installed(study, make_lm, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm(make_lm(LAW), []))
    study("vllm")[0].roll_out()
    monkeypatch.delitem(sys.modules, "vllm")
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    require_goes_on(study, "vllm", tmp_path / "other")


def test_a_server_that_tells_the_sampling_law_is_compared_under_it(study, make_lm, tmp_path):
    """SGLang's are of the law after temperature; said to be of another, they are refused."""
    policy, other = make_lm(LAW), str(tmp_path / "other")
    with token_server(policy, report=policy) as (url, _):
        made, heard = study(at(url, server="sglang"))
        made.roll_out()
        assert any("agree" in line for line in heard.lines)
        require_local_law(made)
        said, _ = study(at(url, server="sglang", log_probs="model"), output=other)
        said.check()  # the folder is this experiment's
        with pytest.raises(ValueError, match=r"of another law .*log_probs"):
            said.roll_out()
        # How answers are read is no part of whose results a folder holds: corrected, it goes on.
        mended, _ = study(at(url, server="sglang"), output=other)
        mended.roll_out()


def test_secrets_in_the_file_are_refused_and_not_shown(experiment):
    for wrong in (
        {"base_urls": ["http://user:s3cret@host/v1"]},
        {"base_urls": ["http://user:s3cret@[host/v1"]},
        {"base_urls": ["http://host/v1?key=s3cret"]},
        {"api_key_env": "sk-s3cret"},
    ):
        with pytest.raises(ValueError, match=r"rollouts\.engine.*(base_urls|api_key_env)") as told:
            experiment(rollouts={"k": 16, "engine": {"kind": "openai_server"} | wrong})
        assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    ("engine", "changes", "message"),
    [
        ({"kind": "openai_server", "server": "transformers"}, {}, r"training is fit.*vllm, sglang"),
        (
            {"kind": "openai_server", "server": "llama_cpp"},
            {"training": {"kind": "offline", "kl": 0.5}},
            "training is offline.*llama_cpp",
        ),
        (
            "openai_server",
            {"policy": {"kind": "choice_lm"}, "training": {"kind": "exact", "kl": 0.5}},
            "nothing is sampled",
        ),
        ("openai_server", {"policy": {"model": "embedded"}}, r"give rollouts\.engine\.model"),
        ({"kind": "openai_server", "base_urls": ["host:8000"]}, {}, "http://host:port/v1"),
        (
            {"kind": "openai_server", "base_urls": ["http://127.0.0.1:99999/v1"]},
            {},
            "base_urls has .*99999.* whose port",
        ),
        ({"kind": "openai_server", "base_urls": ["http://[bad/v1"]}, {}, "base_urls has .*bad"),
        ({"kind": "openai_server", "base_urls": ["http://"]}, {}, "base_urls has .*no host"),
        ({"kind": "openai_server", "base_urls": []}, {}, "base_urls is empty"),
        ({"kind": "openai_server", "concurrency": 0}, {}, "concurrency is 0"),
        ({"kind": "openai_server", "read_timeout": 0}, {}, "read_timeout is 0"),
        ({"kind": "openai_server", "sever": "vllm"}, {}, "did you mean 'server'"),
        ({"kind": "vllm", "gpu_memory_utilization": 2}, {}, "gpu_memory_utilization is 2"),
        ({"kind": "vllm", "tolerance": 0}, {}, "tolerance is 0"),
    ],
)
def test_what_cannot_work_is_refused_with_the_file(experiment, engine, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(rollouts={"k": 16, "engine": engine}, **changes)
