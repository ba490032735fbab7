"""OpenRLHF: the exported command parses as released, and means what the theory needs."""

import asyncio
import concurrent.futures
import itertools
import json
import logging
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engines import arguments, needed, openrlhf_parser, released

from infalign.integrations import openrlhf
from infalign.integrations.engine_files import Batches
from infalign.integrations.frozen import FrozenReward
from infalign.quantile.transforms import Custom, Identity

ONE = Batches(prompts=1)


@pytest.fixture
def exported(frozen, prompts, tmp_path):
    return openrlhf.write_openrlhf(frozen, prompts, tmp_path / "openrlhf", batches=ONE)


@pytest.fixture(scope="module")
def engine():
    with released() as load:
        yield load


def parsed(folder):
    return vars(openrlhf_parser().parse_args(arguments(folder / "openrlhf.sh")))


class TestSettings:
    def test_the_released_parser_takes_the_command(self, exported):
        given = parsed(exported)
        assert given["algo.kl.init_coef"] == 0.25
        assert given["rollout.temperature"] == 0.8
        assert given["rollout.max_new_tokens"] == 12
        assert given["reward.remote_url"] == str(exported / "reward.py")
        assert given["actor.model_name_or_path"] == "tiny/model"
        assert given["data.label_key"] == "prompt_id"
        assert not given["data.apply_chat_template"]

    @pytest.mark.parametrize(
        "wrong", [["--algo.kl.coef", "1"], ["--reward.clip_range", "-1e6", "1e6"]]
    )
    def test_the_released_parser_refuses(self, wrong, capsys):
        """Negative control: an unknown option, and a range as argparse cannot read it."""
        with pytest.raises(SystemExit):
            openrlhf_parser().parse_args(wrong)
        assert "error" in capsys.readouterr().err

    def test_defaults_that_would_break_the_theory_are_set(self, exported):
        """If a default changes for the better, the documents are to be changed with it."""
        defaults, given = vars(openrlhf_parser().parse_args([])), parsed(exported)
        broken = {
            "algo.advantage.estimator": "gae",
            "algo.kl.init_coef": 0.01,
            "rollout.n_samples_per_prompt": 1,
            "reward.clip_range": (-10, 10),
            "data.label_key": None,
        }
        assert {key: defaults[key] for key in broken} == broken
        for key in (
            "algo.advantage.estimator",
            "algo.kl.init_coef",
            "rollout.n_samples_per_prompt",
        ):
            assert given[key] != broken[key]

    def test_options_left_out_are_off(self, exported):
        given = parsed(exported)
        off = {
            **dict.fromkeys(("algo.kl.use_loss", "algo.dynamic_filtering_enable"), False),
            **dict.fromkeys(("reward.overlong_buffer_len", "algo.kl.target"), None),
            **dict.fromkeys(("reward.stop_properly_penalty_coef", "actor.entropy_coef"), None),
            "algo.advantage.is_correction_level": "off",
            "data.input_template": None,
        }
        assert {key: given[key] for key in off} == off

    def test_no_difference_of_training_rewards_is_clipped(self, freeze_at, prompts, tmp_path):
        texts = {p.id: p.text for p in prompts}
        steep = Custom(lambda u: 1e4 * u**3, "tall")
        folder = freeze_at(tmp_path / "f", texts, np.ones((3, 6)), steep)
        given = parsed(openrlhf.write_openrlhf(folder, prompts, tmp_path / "o", batches=ONE))
        low, high = given["reward.clip_range"]
        width = np.ptp(np.load(folder / "rank_means.npy"))
        assert -low == high > width > 1000

    def test_the_version_named_is_the_one_checked(self):
        assert needed("openrlhf") == openrlhf.VERSION


class TestRows:
    def test_the_released_dataset_reads_them(self, engine, exported, prompts):
        lines = (exported / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        arguments_of = SimpleNamespace(
            data=SimpleNamespace(input_key="prompt", label_key="prompt_id", image_key="images")
        )
        strategy = SimpleNamespace(args=arguments_of, is_rank_0=lambda: False)
        dataset = engine("openrlhf.datasets.prompts_dataset").PromptDataset
        rows = dataset([json.loads(line) for line in lines], None, strategy)
        read = [rows[i][1:3] for i in range(len(rows))]
        assert read == [(p.text, p.id) for p in prompts]

    def test_what_a_tokenizer_adds_is_written_out(self, frozen, prompts, tmp_path):
        def context(text):
            return f"<s>{text}"

        folder = openrlhf.write_openrlhf(
            frozen, prompts, tmp_path / "o", batches=ONE, context=context, prompt_tokens=20
        )
        lines = (folder / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        assert [json.loads(line)["prompt"] for line in lines] == [f"<s>{p.text}" for p in prompts]
        assert parsed(folder)["data.max_len"] == 20 + 12


class TestRewardFunc:
    @pytest.mark.parametrize(
        ("said", "text"),
        [
            ("7<|im_end|>", "7"),
            ("7", "7"),
            ("", ""),
            ("<|im_end|>", ""),
            ("7\nand on<|im_end|>", "7"),
            ("<|im_start|>7<|endoftext|>8", "7"),
        ],
    )
    def test_it_scores_the_response_alone(self, frozen, prompts, said, text):
        prompt = prompts[1]
        answer = openrlhf.load(frozen)([prompt.text + said], [prompt.text], [prompt.id])
        scored = FrozenReward.load(frozen).score([prompt.id], [text])
        assert answer["rewards"].tolist() == scored.training_rewards.tolist()
        assert answer["scores"].tolist() == scored.training_rewards.tolist()
        assert answer["extra_logs"]["raw_reward"].tolist() == scored.rewards.tolist()
        assert answer["extra_logs"]["quantile"].tolist() == scored.quantiles.tolist()
        assert answer["rewards"].dtype == torch.float64

    def test_several_at_once(self, frozen, prompts):
        queries = [f"{p.text}{i}<|im_end|>" for i, p in enumerate(prompts)]
        texts, ids = [p.text for p in prompts], [p.id for p in prompts]
        answer = openrlhf.load(frozen)(queries, texts, ids)
        one = [
            openrlhf.load(frozen)([q], [t], [i])["rewards"].item()
            for q, t, i in zip(queries, texts, ids, strict=True)
        ]
        assert answer["rewards"].tolist() == one

    @pytest.mark.parametrize(
        ("query", "label", "message"),
        [
            ("is the sky blue? 7", 0, "begins 'is the sky"),
            ("Why is the sky blue?7", 1.5, "1.5 (float); it must be a prompt id"),
            ("Why is the sky blue?7", "nobody", "'nobody' has no reference rewards"),
        ],
    )
    def test_what_is_wrong_is_logged_as_an_error(
        self, frozen, prompts, caplog, query, label, message
    ):
        """OpenRLHF mentions an exception at INFO; ours is an ERROR of its own."""
        label = prompts[0].id if label == 0 else label
        with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match=re.escape(message)):
            openrlhf.load(frozen)([query], [prompts[0].text], [label])
        assert message in caplog.text

    def test_threads_and_copies_agree(self, frozen, prompts):
        reward_func = openrlhf.load(frozen)
        copy = pickle.loads(pickle.dumps(reward_func))
        asked = [(prompts[i % 3], str(i)) for i in range(300)]

        def ask(function, prompt, text):
            answer = function([f"{prompt.text}{text}<|im_end|>"], [prompt.text], [prompt.id])
            return answer["rewards"].item()

        one = [ask(reward_func, *pair) for pair in asked]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for function in (reward_func, copy):
                many = pool.map(ask, itertools.repeat(function), *zip(*asked, strict=True))
                assert list(many) == one


class TestMisfit:
    def test_the_released_loader_fails_at_once(self, engine, exported, monkeypatch, tmp_path):
        executor = engine("openrlhf.utils.agent").SingleTurnAgentExecutor
        assert callable(executor([str(exported / "reward.py")]).reward_func)
        monkeypatch.setenv("INFALIGN_FROZEN", str(tmp_path / "nowhere"))
        with pytest.raises(FileNotFoundError, match="holds no frozen reward"):
            executor([str(exported / "reward.py")])

    def test_no_known_end_of_text(self, freeze_at, prompts, tmp_path):
        texts = {p.id: p.text for p in prompts}
        folder = freeze_at(tmp_path / "f", texts, np.ones((3, 6)), Identity(), end_marks=[])
        with pytest.raises(ValueError, match="records no end_marks"):
            openrlhf.load(folder)

    def test_a_transform_that_does_not_fit_the_store(self, frozen, tmp_path):
        """Digests are right, shapes are not: such a folder was put together by hand."""
        import hashlib
        import shutil

        copy = shutil.copytree(frozen, tmp_path / "copy")
        facts = json.loads((copy / "frozen.json").read_text())
        for means, message in ((np.arange(6.0), "do not fit"), (-np.arange(7.0), "increasing")):
            np.save(copy / "rank_means.npy", means)
            digest = hashlib.sha256((copy / "rank_means.npy").read_bytes()).hexdigest()
            facts["files"]["rank_means.npy"] = digest
            (copy / "frozen.json").write_text(json.dumps(facts))
            with pytest.raises(ValueError, match=message):
                openrlhf.load(copy)


def test_refusals_are_those_of_verl_with_its_name(freeze_at, prompts, tmp_path):
    law = {"temperature": 1.0, "max_new_tokens": 4, "stop": ["END"]}
    texts = {p.id: p.text for p in prompts}
    folder = freeze_at(tmp_path / "f", texts, np.ones((3, 6)), Identity(), sampling=law)
    with pytest.raises(ValueError, match="stop at 'END'; OpenRLHF cannot stop at strings"):
        openrlhf.write_openrlhf(folder, prompts, tmp_path / "o", batches=ONE)


def advantages(engine, kind, phi, kl, mask, clip):
    """The released estimator: rewards and per-token k1 in, advantages out."""
    made = engine("openrlhf.trainer.ppo_utils.experience_maker")
    maker = made.RemoteExperienceMaker
    args = SimpleNamespace(
        algo=SimpleNamespace(
            advantage=SimpleNamespace(estimator=kind, gamma=1.0, no_std_norm=False)
        ),
        rollout=SimpleNamespace(n_samples_per_prompt=4),
        reward=SimpleNamespace(
            clip_range=clip, overlong_buffer_len=None, stop_properly_penalty_coef=None
        ),
    )
    experience = SimpleNamespace(
        rewards=phi.clone(), index=list(range(len(phi))), kl=kl, action_mask=mask, info={}
    )
    self = SimpleNamespace(
        strategy=SimpleNamespace(args=args),
        advantage_estimator=kind,
        kl_ctl=SimpleNamespace(value=0.25),
    )
    self.get_cumulative_returns = maker.get_cumulative_returns.__get__(self)
    maker.compute_advantages_and_returns(self, [experience])
    return experience.advantages


def test_released_advantages_are_those_of_the_theory(engine, exported):
    """Leave-one-out Φ, minus β·k1 of the tokens still to come: unbiased for E[Φ] − β·KL."""
    clip, generator = parsed(exported)["reward.clip_range"], torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 3, 1, 4, 2, 5, 5, 3])
    mask = (torch.arange(5) < lengths[:, None]).long()
    phi = torch.rand(8, generator=generator, dtype=torch.float64)
    kl = torch.randn(8, 5, generator=generator) * mask
    groups = phi.reshape(2, 4)
    baseline = (groups.sum(1, keepdim=True) - groups) / 3
    to_come = kl.flip(1).cumsum(1).flip(1)
    expected = (groups - baseline).reshape(8, 1) - 0.25 * to_come
    seen = advantages(engine, "rloo", phi, kl, mask, clip)
    torch.testing.assert_close(seen * mask, (expected * mask).to(seen.dtype))
    # Negative controls: the default clipping range, and an estimator that divides by a spread.
    tall = advantages(engine, "rloo", 1000 * phi, kl, mask, (-10, 10))
    assert tall.abs().max() < 20 < (1000 * (groups - baseline)).abs().max()
    whitened = advantages(engine, "reinforce_baseline", phi, kl, mask, clip)
    assert not torch.allclose(whitened * mask, (expected * mask).to(seen.dtype), atol=0.1)


def test_a_failing_reward_leaves_none_and_is_only_mentioned(engine, exported, prompts, capsys):
    """Why everything is checked at import: the released executor swallows what comes later."""
    executor = engine("openrlhf.utils.agent").SingleTurnAgentExecutor([str(exported / "reward.py")])

    class Tokenizer:
        def __call__(self, text, **kwargs):
            return {"input_ids": torch.tensor([[1]])}

        def decode(self, ids, **kwargs):
            return "another text"

    class Engine:
        async def generate(self, *args, **kwargs):
            output = SimpleNamespace(token_ids=[2], finish_reason="stop", logprobs=None)
            return SimpleNamespace(outputs=[output])

    law = SimpleNamespace(max_tokens=4, logprobs=None)
    row = (prompts[0].text, prompts[0].id, law, 64, Tokenizer(), Engine())
    assert asyncio.run(executor.execute(*row))["reward"] is None
