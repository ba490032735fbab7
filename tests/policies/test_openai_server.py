"""Servers as samplers: whatever fails, the store ends complete, once each, and as undisturbed."""

import os
import signal
import threading

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("openai")
torch = pytest.importorskip("torch")

from infalign.policies.openai_server import Connection, OpenAIServer  # noqa: E402
from infalign.prompts import Prompt  # noqa: E402
from infalign.protocols import Sampler, Sampling  # noqa: E402
from infalign.rollouts import RolloutStore, collect  # noqa: E402
from servers import FAULTS, Proxy, broken, free_port, silent  # noqa: E402

LAW = Sampling(temperature=0.8, max_new_tokens=5, stop=('"',))
PROMPTS = [Prompt.from_text(text) for text in ("the film is", "a", "it is a lazy", "cast")]
K = 3
REQUESTS = len(PROMPTS) * K


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def engine(served):
    """Makes samplers on the real server, or on the addresses given."""

    def make(
        *urls,
        sampling=LAW,
        model=served.model,
        patience=60.0,
        retries=1,
        read_timeout=30.0,
        **options,
    ):
        connection = Connection(
            urls or (served.url,), read_timeout=read_timeout, patience=patience, retries=retries
        )
        return OpenAIServer(model, sampling, connection, server="transformers", **options)

    return make


def drawn(folder, sampler, progress=None):
    """What a store holds when all is collected, two prompts at a time."""
    store = RolloutStore.open(folder, sampler, seed=3)
    collect(sampler, PROMPTS, K, store, chunk=2, progress=progress)
    rows = store.read().to_pylist()
    assert all(np.isnan(row.pop("log_prob")) for row in rows)  # this server tells none
    return rows


@pytest.fixture(scope="module")
def undisturbed(served, tmp_path_factory):
    connection = Connection((served.url,), read_timeout=30)
    sampler = OpenAIServer(served.model, LAW, connection, server="transformers")
    return drawn(tmp_path_factory.mktemp("undisturbed"), sampler)


def require_once_each(rows):
    keys = [(row["prompt_id"], row["sample"]) for row in rows]
    assert sorted(keys) == sorted((p.id, k) for p in PROMPTS for k in range(K))


def test_it_is_a_sampler_that_keeps_the_law(engine, undisturbed):
    sampler = engine()
    assert isinstance(sampler, Sampler)
    require_once_each(undisturbed)
    (row,) = sampler.sample(["the film is"], 4, rng())
    assert len({response.text for response in row}) > 1
    assert [row] == sampler.sample(["the film is"], 4, rng())  # this server honours seeds
    assert [row] != sampler.sample(["the film is"], 4, rng(1))
    assert all('"' not in response.text for response in row)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_now_and_then_changes_nothing(fault, engine, served, undisturbed, tmp_path):
    proxy = Proxy(served.url, fault, failing=lambda place: place == 4)
    seconds = 5.0 if fault is silent else 30.0  # a busy machine answers in less
    with proxy.running() as url:
        assert drawn(tmp_path, engine(url, read_timeout=seconds)) == undisturbed
    assert proxy.seen == REQUESTS + 1


def test_another_server_steps_in_for_one_that_is_gone(engine, served, undisturbed, tmp_path):
    gone = f"http://127.0.0.1:{free_port()}/v1"
    assert drawn(tmp_path, engine(gone, served.url, retries=0)) == undisturbed


def test_a_server_killed_and_started_again_half_way_costs_nothing(
    engine, served, undisturbed, tmp_path
):
    def kill(done, total):
        if done == total // 2:
            served.kill()
            served.start()

    try:
        rows = drawn(tmp_path, engine(patience=120.0), progress=kill)
    finally:
        served.wait()
    require_once_each(rows)
    assert rows == undisturbed


def test_without_another_try_a_fault_is_told_and_a_resume_completes(
    engine, served, undisturbed, tmp_path
):
    """Negative control: it is trying again that hides the faults."""
    with Proxy(served.url, broken, failing=lambda place: place >= 8).running() as url:
        with pytest.raises(ConnectionError, match=r"no answer from .*status 500.*out of memory"):
            drawn(tmp_path, engine(url, patience=0.0, retries=0))
        assert len(RolloutStore.existing(tmp_path).read()) == REQUESTS // 2  # the first chunk
    assert drawn(tmp_path, engine()) == undisturbed


@pytest.mark.parametrize(
    "name", ["garbled", "no choices", "no text", "aborted", "index null", "half a character"]
)
def test_answers_that_stay_malformed_are_refused_with_what_came(name, engine, served):
    with (
        Proxy(served.url, FAULTS[name], failing=lambda place: True).running() as url,
        pytest.raises(ValueError, match=rf"{url} is malformed.*choices.*Asked 2 times"),
    ):
        engine(url).sample(["a"], 1, rng())


def test_a_silent_server_is_given_up_with_its_address(engine, served):
    with (
        Proxy(served.url, silent, failing=lambda place: True).running() as url,
        pytest.raises(ConnectionError, match=rf"{url} \(timed out\)"),
    ):
        engine(url, patience=0.0, retries=0, read_timeout=0.3).sample(["a"], 1, rng())


def test_ctrl_c_leaves_requests_and_keeps_finished_chunks(engine, served, undisturbed, tmp_path):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread")

    def stop(done, total):
        if done == total // 2:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    with (
        Proxy(served.url, silent, failing=lambda place: place >= REQUESTS // 2).running() as url,
        pytest.raises(KeyboardInterrupt),
    ):
        drawn(tmp_path, engine(url), progress=stop)
    assert drawn(tmp_path, engine()) == undisturbed


# --- the law ---


def first_token_fit(policy, texts):
    """p-value of first-token texts against the policy's exact next-token law."""
    ids = torch.tensor([policy.codec.encode("the film is")])
    with torch.no_grad():
        logits = policy.module(input_ids=ids).logits[0, -1].double()
    masses = {}
    for token, mass in enumerate(torch.softmax(logits / LAW.temperature, -1).tolist()):
        text = policy.codec.text([token])
        masses[text] = masses.get(text, 0.0) + mass
    counts = dict.fromkeys(masses, 0)
    for text in texts:
        counts[text] += 1
    expected = np.array(list(masses.values())) * len(texts)
    observed = np.array(list(counts.values()))
    rare = expected < 5
    groups = [np.append(x[~rare], x[rare].sum()) for x in (observed, expected)]
    return stats.chisquare(*groups).pvalue


def test_first_tokens_follow_the_local_law_and_no_other(engine, make_lm):
    """False-alarm rate 1e-4 by the threshold; the seed is fixed, so it passes or fails for good."""
    policy = make_lm(LAW)
    texts = {}
    for temperature, count in ((0.8, 200), (1.6, 100)):
        one = Sampling(temperature, 1, LAW.stop)
        (row,) = engine(sampling=one, codec=policy.codec).sample(["the film is"], count, rng())
        texts[temperature] = [response.text for response in row]
    assert first_token_fit(policy, texts[0.8]) > 1e-4
    assert first_token_fit(policy, texts[1.6]) < 1e-4


# --- before long work ---


def test_the_check_finds_a_server_that_is_well(engine, make_lm):
    trial = engine(codec=make_lm(LAW).codec).check([prompt.text for prompt in PROMPTS])
    assert [len(row) for row in trial.responses] == [2] * 4
    assert np.isnan(trial.reported).all()  # this server tells no log-probabilities


def test_the_check_refuses_what_would_fail_late(engine, served, make_lm):
    gone = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ConnectionError, match=rf"no server answers at {gone} .*base_urls"):
        engine(gone, retries=0).check(["a"])
    with pytest.raises(ValueError, match=r"refuses the request.*Asked for the model 'other'"):
        engine(model="other").check(["a"])
    as_vllm = OpenAIServer(served.model, LAW, Connection((served.url,)))
    with pytest.raises(ValueError, match="Unexpected fields"):
        as_vllm.check(["a"])
    greedy = OpenAIServer(served.model, LAW, Connection((served.url,)), server="openai")
    with pytest.raises(ValueError, match="decodes greedily"):
        greedy.check(["a"])


def test_a_prompt_the_server_would_read_otherwise_is_refused(engine, make_lm):
    codec = make_lm(LAW).codec
    engine(codec=codec).check(["the film is"])  # with the document mark written out
    other = engine(codec=codec)
    other._codec.written = lambda prompt: prompt
    with pytest.raises(ValueError, match=r"reads prompt 'the film is' as 4 tokens .* as 5"):
        other.check(["the film is"])
    del codec.written


def test_stops_that_straddle_tokens_need_token_ids(engine, make_lm):
    codec = make_lm(LAW).codec
    with pytest.raises(ValueError, match=r"'\\n\\n'.*straddles"):
        engine(sampling=Sampling(stop=("\n\n",)), codec=codec)
