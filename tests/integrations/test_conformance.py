"""The same prompt and response give bit-equal training rewards on every path.

verl and OpenRLHF run as released: their own loaders import the exported `reward.py`, verl's own
reward manager and OpenRLHF's own executor decode the response and call it. Around them are a
tokenizer of one token per character, one as Llama 2 has it, and stand-ins for what is not installed
(see `engines.py`).
"""

import asyncio
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engines import Configuration, arguments, llama2, released, verl_configuration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infalign.integrations import openrlhf, verl
from infalign.integrations.decoding import Sampled
from infalign.integrations.frozen import FrozenReward
from infalign.integrations.trl import CalibratedReward as TrlReward
from infalign.policies.tokens import TextCodec
from infalign.prompts import Prompt
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Custom, Exponential, Identity, Log
from infalign.rewards import FunctionReward
from infalign.training import CalibratedReward

TRANSFORMS = (Identity(), Log(), Exponential(5.0), Exponential(-8.0), Exponential(120.0))
END = "<|im_end|>"


class Characters:
    """A tokenizer: a token per character, and one for the end."""

    end = 0x110000

    def __call__(self, text, add_special_tokens, return_tensors):
        assert not add_special_tokens
        assert return_tensors == "pt"
        return {"input_ids": torch.tensor([[ord(character) for character in text]])}

    def response(self, text):
        """The tokens of a response."""
        return [*map(ord, text), self.end]

    def decode(self, ids, skip_special_tokens):
        end = "" if skip_special_tokens else END
        return "".join(end if i == self.end else chr(i) for i in map(int, ids))


class Item:
    """As much of verl's DataProto as a reward manager reads: one row."""

    def __init__(self, batch, non_tensor_batch):
        self.batch, self.non_tensor_batch = batch, non_tensor_batch

    def __getitem__(self, key):
        return self


def asked_by_verl(manager, row, ids, cap):
    """What verl's reward manager makes of a response: its score, before any tensor."""
    padded = torch.tensor([*ids, *[0] * (cap - len(ids))])
    mask = torch.tensor([1, 1, *[1] * len(ids), *[0] * (cap - len(ids))])
    item = Item({"responses": padded, "attention_mask": mask}, row)
    return manager.loop.run_until_complete(manager.run_single(item))


class Engine:
    """Answers with a given response, as vLLM would: tokens and why it stopped."""

    def __init__(self, ids):
        self.ids = ids

    async def generate(self, prompt_ids, sampling, multi_modal_data=None):
        output = SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


def asked_by_openrlhf(executor, row, ids, tokenizer):
    """What OpenRLHF's executor makes of a response: its whole answer."""
    sampling = SimpleNamespace(max_tokens=64, logprobs=None)
    answer = executor.execute(
        row["prompt"], row["prompt_id"], sampling, 4096, tokenizer, Engine(ids)
    )
    return asyncio.run(answer)


def loaded_by_verl(load, folder, tokenizer):
    """verl's reward manager, made from the exported command as verl makes it."""
    given = dict(word.split("=", 1) for word in arguments(folder / "verl.sh"))
    unquoted = {key: value.strip("'\"") for key, value in given.items()}
    config = Configuration.of(verl_configuration() | unquoted)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return load("verl.trainer.ppo.reward").load_reward_manager(config, tokenizer)


def bits(values):
    """Eight bytes a number: equal bits or not equal."""
    return np.asarray(values, dtype=np.float64).tobytes()


def paths(load, frozen_folder, prompts, folder, tokenizer, **asked):
    """name → (prompt, tokens of a response) → training reward."""
    import json

    import pyarrow.parquet as pq

    asked |= {"batches": verl.Batches(prompts=1), "tokenizer": tokenizer}
    verl.write_verl(frozen_folder, prompts, folder / "verl", **asked)
    openrlhf.write_openrlhf(frozen_folder, prompts, folder / "openrlhf", **asked)
    rows = {
        row["extra_info"]["prompt_id"]: row
        for row in pq.read_table(folder / "verl/train.parquet").to_pylist()
    }
    lines = (folder / "openrlhf/train.jsonl").read_text(encoding="utf-8").split("\n")
    labelled = {json.loads(line)["prompt_id"]: json.loads(line) for line in lines if line}
    manager = loaded_by_verl(load, folder / "verl", tokenizer)
    remote = str(folder / "openrlhf/reward.py")
    executor = load("openrlhf.utils.agent").SingleTurnAgentExecutor([remote])
    trl = TrlReward(frozen_folder)

    def of_openrlhf(prompt, ids):
        return asked_by_openrlhf(executor, labelled[prompt.id], ids, tokenizer)["reward"].item()

    def alone(ids):
        return tokenizer.decode(ids, skip_special_tokens=True)

    reward = FrozenReward.load(frozen_folder)
    return {
        "verl": lambda p, ids: asked_by_verl(manager, rows[p.id], ids, 64)["reward_score"],
        "OpenRLHF": of_openrlhf,
        "TRL": lambda p, ids: trl([p.text], [alone(ids)], prompt_id=[p.id])[0],
        "frozen": lambda p, ids: reward.score([p.id], [alone(ids)]).training_rewards,
    }


def ended(ids, codec):
    """Tokens as sampled: up to the first that ends a response."""
    ids = [*ids, codec.tokenizer.eos_token_id]
    return ids[: 1 + next(i for i, token in enumerate(ids) if token in codec.stop_ids)]


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="▁")
    | st.sampled_from("\n aé你"),
    max_size=9,
)
REWARD = st.integers(-1, 9).map(lambda bucket: bucket / 7) | st.floats(-2, 2)


@st.composite
def worlds(draw):
    """Prompts, K reference rewards each, a transform, completions."""
    texts = draw(st.lists(TEXT.filter(str.strip), min_size=1, max_size=3, unique=True))
    k = draw(st.integers(2, 64))
    rewards = [draw(st.lists(REWARD, min_size=k, max_size=k)) for _ in texts]
    completions = draw(st.lists(TEXT, min_size=1, max_size=8))
    return texts, np.array(rewards), draw(st.sampled_from(TRANSFORMS)), completions


@pytest.fixture(scope="module")
def engines():
    with released() as load:
        yield load


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    folders = iter(range(10**6))
    return lambda: tmp_path_factory.mktemp(f"case{next(folders)}")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_every_path_gives_the_same_bits(world, engines, freeze_at, reward_module, numbered):
    texts, rewards, transform, completions = world
    prompts, folder = [Prompt.from_text(text) for text in texts], numbered()
    frozen = freeze_at(folder / "frozen", {p.id: p.text for p in prompts}, rewards, transform)
    ids = tuple(p.id for p in prompts)
    ours = CalibratedReward(
        FunctionReward(f"{reward_module}:bucket"), EmpiricalCalibration(ids, rewards), transform
    )
    tokenizer = Characters()
    ways = paths(engines, frozen, prompts, folder, tokenizer)
    for prompt in prompts:
        for completion in completions:
            ids = tokenizer.response(completion)
            response = re.split("\n", completion)[0]  # what the stored sampling law leaves
            expected = ours([prompt.id], [prompt.text], [[response]])[0, 0]
            for name, way in ways.items():
                assert bits(way(prompt, ids)) == bits(expected), (name, prompt, completion)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(world=worlds())
def test_and_with_a_tokenizer_that_drops_spaces(world, engines, freeze_at, reward_module, numbered):
    """Llama 2's: responses begin with `▁`, which is a space after a prompt and nothing alone."""
    texts, rewards, transform, completions = world
    prompts, folder, tokenizer = [Prompt.from_text(text) for text in texts], numbered(), llama2()
    codec = TextCodec(tokenizer, ["\n"], [tokenizer.eos_token_id])
    marks = {"end_marks": codec.end_marks, "special_tokens": codec.special_tokens}
    texts_of = {p.id: p.text for p in prompts}
    frozen = freeze_at(folder / "frozen", texts_of, rewards, transform, **marks)
    ours = CalibratedReward(
        FunctionReward(f"{reward_module}:bucket"),
        EmpiricalCalibration(tuple(texts_of), rewards),
        transform,
    )
    said = [
        ended(tokenizer(c, add_special_tokens=False)["input_ids"][skipped:], codec)
        for c in ["Yes.", "a b", *completions]
        for skipped in (0, 1)
    ]
    sampled = [Sampled(p.id, ids, codec.text(ids)) for p in prompts for ids in said]
    asked = {"context": codec.context_text, "sampled": sampled}
    ways = paths(engines, frozen, prompts, folder, tokenizer, **asked)
    for prompt in prompts:
        for ids in said:
            expected = ours([prompt.id], [prompt.text], [[codec.text(ids)]])[0, 0]
            for name, way in ways.items():
                assert bits(way(prompt, ids)) == bits(expected), (name, prompt, codec.text(ids))


def test_what_is_seen_of_a_steep_transform_is_not_rounded(engines, freeze_at, numbered):
    """Training rewards that only float64 tells apart arrive apart."""
    folder, prompt = numbered(), Prompt.from_text("Why?")
    steep = Custom(lambda u: 1e6 + u**9, "far from zero")
    frozen = freeze_at(folder / "frozen", {prompt.id: prompt.text}, [np.arange(9) / 7], steep)
    ways = paths(engines, frozen, [prompt], folder, tokenizer := Characters())
    for way in ways.values():
        said = [tokenizer.response(str(i)) for i in range(60)]
        seen = {float(np.ravel(way(prompt, ids))[0]) for ids in said}
        assert len(seen) > len({np.float32(value) for value in seen})


def test_negative_controls(frozen, prompts, reward_module):
    """Adapters with a small mistake are told apart by the comparison above."""
    reward, means = FrozenReward.load(frozen), np.load(frozen / "rank_means.npy")
    ids = [p.id for p in prompts]
    texts = [str(i) for i in range(20)]
    asked = [(i, t) for i in ids for t in texts]
    scored = reward.score(*map(list, zip(*asked, strict=True)))
    sorted_rewards = reward.reference_rewards[reward.rows_of([i for i, _ in asked])]
    below = (sorted_rewards < scored.rewards[:, None]).sum(axis=1)
    ties = (sorted_rewards == scored.rewards[:, None]).sum(axis=1)
    assert ties.any()
    assert not ties.all()
    right = [means[b : b + t + 1].mean() for b, t in zip(below, ties, strict=True)]
    np.testing.assert_allclose(scored.training_rewards, right, rtol=1e-14)
    wrong = {
        "rounded to float32": scored.training_rewards.astype(np.float32),
        "ties not counted": means[below],
        "ties counted below": means[below + ties],
        "half a tie": np.interp(below + ties / 2, np.arange(len(means)), means),
        "Φ of the plain quantile": Exponential(5.0)(scored.quantiles),
    }
    for name, values in wrong.items():
        assert bits(values) != bits(scored.training_rewards), name


def test_what_the_engines_round_to_afterwards(engines, frozen, prompts, tmp_path):
    """Both train in float32: the tensor holds the nearest float32 of what was returned."""
    verl.write_verl(frozen, prompts, tmp_path / "verl", batches=verl.Batches(prompts=1))
    manager = loaded_by_verl(engines, tmp_path / "verl", tokenizer := Characters())
    openrlhf.write_openrlhf(frozen, prompts, tmp_path / "o", batches=verl.Batches(prompts=1))
    executor = engines("openrlhf.utils.agent").SingleTurnAgentExecutor(
        str(tmp_path / "o/reward.py")
    )
    generator = engines("openrlhf.trainer.ppo_utils.samples_generator").SamplesGenerator
    shaping = engines("openrlhf.models.utils")
    score = verl.load(frozen)
    for text in map(str, range(12)):
        ours = score("", text, "", {"prompt_id": prompts[0].id})["score"]
        data = Item({"prompts": torch.zeros(1, 2), "responses": torch.zeros(1, 5)}, {})
        data.batch["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
        tensor = manager.assemble_rm_scores(data, [ours])
        assert tensor[0, 2].item() == np.float32(ours)
        assert tensor.count_nonzero() == (ours != 0)
        row, ids = {"prompt": "x", "prompt_id": prompts[0].id}, tokenizer.response(text)
        answer = asked_by_openrlhf(executor, row, ids, tokenizer)
        rewards = generator._process_response_into_experience(None, answer).rewards
        assert rewards.dtype == torch.float64
        assert rewards.item() == ours
        shaped = shaping.compute_reward(rewards, 0.5, torch.zeros(1, 3), torch.ones(1, 3))
        assert shaped[0, -1].item() == np.float32(ours)
