"""vLLM in process, against a stand-in with its signatures: the law is the local policy's."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))

from fake_vllm import fake_vllm  # noqa: E402

from infalign.policies import VLLM  # noqa: E402
from infalign.prompts import Prompt  # noqa: E402
from infalign.protocols import Sampler, Sampling  # noqa: E402
from infalign.rollouts import RolloutStore, collect  # noqa: E402

LAW = Sampling(temperature=0.7, max_new_tokens=5, stop=('"', "us"))
PROMPTS = ["the film is", "a", "it is a lazy"]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def engine(make_lm, monkeypatch):
    """Makes a policy and the same model in the stand-in, with what was loaded."""

    def make(change=None, **options):
        policy, loaded = make_lm(LAW), []
        monkeypatch.setitem(sys.modules, "vllm", fake_vllm(policy, loaded, change))
        return policy, VLLM("models/tiny", LAW, policy.codec, **options), loaded

    return make


def test_it_samples_the_local_law_and_tells_its_log_probabilities(engine):
    policy, sampler, loaded = engine()
    assert isinstance(sampler, Sampler)
    assert loaded == []  # not before it is asked
    rows = sampler.sample(PROMPTS, 4, rng())
    assert [len(row) for row in rows] == [4] * 3
    told = [[response.log_prob for response in row] for row in rows]
    np.testing.assert_allclose(told, policy.log_prob(PROMPTS, rows), atol=2e-4)
    assert {response.finish_reason for row in rows for response in row} == {"stop", "length"}
    assert all(response.text == policy.codec.text(response.token_ids) for response in rows[0])
    assert rows == sampler.sample(PROMPTS, 4, rng()) != sampler.sample(PROMPTS, 4, rng(1))
    assert len(loaded) == 1


def test_log_probabilities_before_temperature_would_be_others(engine):
    """Negative control: vLLM's own default is not this law's."""
    policy, sampler, _ = engine(options={"logprobs_mode": "raw_logprobs"})
    rows = sampler.sample(PROMPTS, 2, rng())
    told = np.array([[response.log_prob for response in row] for row in rows])
    assert np.abs(told - policy.log_prob(PROMPTS, rows)).max() > 0.05


def test_the_engine_is_loaded_as_asked(engine):
    _, sampler, loaded = engine(
        tensor_parallel_size=2, gpu_memory_utilization=0.5, dtype="bfloat16", max_model_len=40
    )
    trial = sampler.check(PROMPTS)
    assert trial.reported.shape == (3, 2)
    assert trial.temperature == LAW.temperature
    (facts,) = loaded
    assert facts | {"tensor_parallel_size": 2, "dtype": "bfloat16", "max_model_len": 40} == facts
    assert facts["logprobs_mode"] == "processed_logprobs"
    with pytest.raises(ValueError, match="context window of 40"):
        sampler.check(["the film " * 30])


def test_it_fills_a_store(engine, tmp_path):
    _, sampler, _ = engine()
    prompts = [Prompt.from_text(text) for text in PROMPTS]
    store = RolloutStore.open(tmp_path, sampler, seed=0)
    collect(sampler, prompts, 3, store, chunk=2)
    assert [len(row) for row in store.responses(prompts)] == [3] * 3


def test_answers_of_another_law_are_refused(engine):
    def go_on(outputs):
        outputs[0].token_ids = [2, 5]
        outputs[0].logprobs = [{2: outputs[0].logprobs[0].popitem()[1]}] * 2
        outputs[0].logprobs[1] = {5: next(iter(outputs[0].logprobs[0].values()))}

    _, sampler, _ = engine(go_on)
    with pytest.raises(ValueError, match="goes on after a token that ends"):
        sampler.sample(["a"], 2, rng())

    def lose_one(outputs):
        outputs[0].logprobs.pop()

    _, sampler, _ = engine(lose_one)
    with pytest.raises(ValueError, match="log-probabilities for"):
        sampler.sample(["a"], 2, rng())


def test_the_conventions_come_with_the_model(engine, make_lm, tmp_path):
    policy, _, _ = engine()
    policy.module.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    sampler = VLLM.from_pretrained(tmp_path, LAW)
    assert sampler._codec.stop_ids == policy.codec.stop_ids
    assert sampler._codec.encode("the film") == policy.codec.encode("the film")
    assert sampler.fingerprint == VLLM.from_pretrained(tmp_path, LAW).fingerprint
    assert sampler.fingerprint != VLLM.from_pretrained(tmp_path, LAW, dtype="float32").fingerprint


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_remedy_is_named_when_it_is_asked(make_lm):
    sampler = VLLM("models/tiny", LAW, make_lm(LAW).codec)
    assert sampler.fingerprint == VLLM("models/tiny", LAW, make_lm(LAW).codec).fingerprint
    for ask in (lambda: sampler.check(["a"]), lambda: sampler.sample(["a"], 1, rng())):
        with pytest.raises(ImportError, match=r"pip install 'infalign\[vllm\]'"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size is 0"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(engine, options, message):
    with pytest.raises(ValueError, match=message):
        engine(**options)
