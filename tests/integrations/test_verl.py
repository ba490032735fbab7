"""verl: what is exported exists in its released configuration, and means what the theory needs."""

import concurrent.futures
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from engines import RELEASED, Configuration, arguments, needed, released, verl_configuration

from infalign.integrations import verl
from infalign.integrations.engine_files import Batches
from infalign.integrations.frozen import FrozenReward
from infalign.policies.tokens import TextCodec
from infalign.prompts import Prompt
from infalign.quantile.transforms import Identity

ONE = Batches(prompts=1)


@pytest.fixture
def exported(frozen, prompts, tmp_path):
    return verl.write_verl(frozen, prompts, tmp_path / "verl", batches=ONE)


@pytest.fixture(scope="module")
def engine():
    with released() as load:
        yield load


def unknown_keys(overrides, known):
    return [key for key in overrides if key.lstrip("+") not in known]


def overrides_of(folder):
    return dict(word.split("=", 1) for word in arguments(folder / "verl.sh"))


class TestSettings:
    def test_every_key_is_in_the_released_configuration(self, exported):
        known, given = verl_configuration(), overrides_of(exported)
        assert len(given) > 30
        assert unknown_keys(given, known) == []

    def test_a_misspelt_key_is_noticed(self):
        """Negative control: of the comparison above."""
        keys = ["algorithm.kl_ctrl.kl_coeff", "+reward.custom_reward_function.kwargs"]
        assert unknown_keys(keys, verl_configuration()) == keys

    def test_values_are_of_the_default_s_kind(self, frozen):
        known = verl_configuration()
        asked = verl.settings(FrozenReward.load(frozen), ONE, 9)
        for key, value in asked.items():
            default = known[key]
            if not (default is None or isinstance(default, str)):
                assert isinstance(value, (int, float)), key
                assert isinstance(value, bool) == isinstance(default, bool), key
            elif default is not None and not default.startswith("${"):
                assert isinstance(value, str), key

    def test_defaults_that_would_break_the_theory_are_set(self, frozen):
        """If a default changes for the better, the documents are to be changed with it."""
        known, asked = verl_configuration(), verl.settings(FrozenReward.load(frozen), ONE, 9)
        broken = {
            "algorithm.adv_estimator": "gae",
            "algorithm.use_kl_in_reward": False,
            "algorithm.kl_ctrl.kl_coef": 0.001,
            "algorithm.norm_adv_by_std_in_grpo": True,
            "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        }
        assert {key: known[key] for key in broken} == broken
        assert all(asked[key] != default for key, default in broken.items())

    def test_the_script_holds_the_store_s_law_and_beta(self, exported):
        given = overrides_of(exported)
        assert float(given["algorithm.kl_ctrl.kl_coef"]) == 0.25
        assert float(given["actor_rollout_ref.rollout.temperature"]) == 0.8
        assert int(given["data.max_response_length"]) == 12
        assert given["actor_rollout_ref.model.path"] == '"tiny/model"'
        longest = max(len(text.encode()) for text in ("Why is the sky blue?", "Größe? 你好"))
        assert int(given["data.max_prompt_length"]) >= longest

    def test_the_version_named_is_the_one_checked(self):
        assert needed("verl") == verl.VERSION


class TestRows:
    def test_the_released_dataset_reads_them(self, engine, exported, prompts):
        file = str(exported / "train.parquet")
        config = Configuration.of({k: v for k, v in verl_configuration().items() if "data." in k})
        made = engine("verl.utils.dataset.rl_dataset").RLHFDataset([file], None, config.data)
        rows = [made[i] for i in range(len(made))]
        assert [row["extra_info"]["prompt_id"] for row in rows] == [p.id for p in prompts]
        assert [row["raw_prompt"][0]["content"] for row in rows] == [p.text for p in prompts]
        assert [row["index"] for row in rows] == [0, 1, 2]
        assert {row["data_source"] for row in rows} == {"infalign"}

    def test_the_policy_is_conditioned_on_the_reference_s_tokens(
        self, engine, tokenizer, freeze_at, tmp_path
    ):
        """verl's own prompt builder, with the exported template, against the sampler's tokens."""
        codec = TextCodec(tokenizer, ["\n"], [2])
        plain = Prompt.from_text("the film is")
        said = [{"role": "user", "content": "so?"}]
        chat = Prompt("c", tokenizer.apply_chat_template(said, tokenize=False))
        two = {plain.id: plain.text, chat.id: chat.text}
        frozen = freeze_at(tmp_path / "f", two, [[0, 1], [1, 2]], Identity())
        folder = verl.write_verl(
            frozen, [plain, chat], tmp_path / "v", batches=ONE, context=codec.context_text
        )
        template = overrides_of(folder)["actor_rollout_ref.model.custom_chat_template"]
        builders = engine("verl.utils.tokenizer.continuous_token")
        ours = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
        ours.chat_template = template.strip('"')
        builder = builders.ContinuousTokenBuilder(ours)
        rows = pq.read_table(folder / "train.parquet").to_pylist()
        for row, prompt in zip(rows, [plain, chat], strict=True):
            assert tuple(builder.build_initial_tokens(row["prompt"])) == codec.encode(prompt.text)
        assert codec.encode(plain.text) != tuple(tokenizer(plain.text)["input_ids"])  # it matters


class TestComputeScore:
    def test_it_returns_a_score_and_logs(self, frozen, prompts):
        compute_score = verl.load(frozen)
        answer = compute_score("infalign", "7", "", {"prompt_id": prompts[1].id}, num_turns=2)
        scored = FrozenReward.load(frozen).score([prompts[1].id], ["7"])
        assert answer == {
            "score": scored.training_rewards[0],
            "raw_reward": scored.rewards[0],
            "quantile": scored.quantiles[0],
        }
        assert {type(value) for value in answer.values()} == {float}

    def test_the_key_reward_is_left_to_verl(self, frozen, prompts):
        """Its trainer appends the score to a list `reward`, then each of our keys to its list."""
        needed()
        source = (RELEASED / "verl/trainer/ppo/v1/trainer_base.py").read_text(encoding="utf-8")
        assert 'reward_extra_infos_dict["reward"].extend(scores)' in source
        assert "reward" not in verl.load(frozen)("", "7", "", {"prompt_id": prompts[0].id})

    @pytest.mark.parametrize("extra_info", [None, {}, {"prompt_id": None}, {"index": 3}])
    def test_a_row_without_prompt_id_is_refused(self, frozen, extra_info):
        with pytest.raises(ValueError, match="holds no prompt_id"):
            verl.load(frozen)("infalign", "7", "", extra_info)

    def test_another_prompt_is_refused(self, frozen):
        with pytest.raises(ValueError, match="'nobody' has no reference rewards"):
            verl.load(frozen)("infalign", "7", "", {"prompt_id": "nobody"})

    def test_threads_and_copies_agree(self, frozen, prompts):
        compute_score = verl.load(frozen)
        copy = pickle.loads(pickle.dumps(compute_score))
        assert len(pickle.dumps(compute_score)) < 1000
        asked = [(str(i), {"prompt_id": prompts[i % 3].id}) for i in range(300)]
        one = [compute_score("", text, "", extra)["score"] for text, extra in asked]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            many = pool.map(lambda a: compute_score("", a[0], "", a[1])["score"], asked)
            copies = pool.map(lambda a: copy("", a[0], "", a[1])["score"], asked)
            assert list(many) == one
            assert list(copies) == one
        assert len(set(one)) > 3


class TestMisfit:
    def fails(self, engine, exported):
        config = {
            "reward.custom_reward_function.path": str(exported / "reward.py"),
            "reward.custom_reward_function.name": "compute_score",
        }
        with pytest.raises(RuntimeError, match="Error loading module") as caught:
            engine("verl.trainer.ppo.reward").get_custom_reward_fn(Configuration.of(config))
        return str(caught.value.__cause__)

    def test_a_frozen_reward_that_is_gone(self, engine, exported, monkeypatch, tmp_path):
        monkeypatch.setenv("INFALIGN_FROZEN", str(tmp_path / "nowhere"))
        assert "holds no frozen reward" in self.fails(engine, exported)

    def test_another_frozen_reward(
        self, engine, exported, freeze_at, prompts, monkeypatch, tmp_path
    ):
        """The same store with another transform: β and Φ of the script would not be its."""
        texts = {p.id: p.text for p in prompts}
        other = freeze_at(tmp_path / "other", texts, np.ones((3, 6)), Identity())
        monkeypatch.setenv("INFALIGN_FROZEN", str(other))
        assert "holds another frozen reward" in self.fails(engine, exported)

    def test_half_a_copy(self, engine, exported, frozen, monkeypatch, tmp_path):
        import shutil

        copy = shutil.copytree(frozen, tmp_path / "copy")
        (copy / "reference_rewards.npy").write_bytes(b"")
        monkeypatch.setenv("INFALIGN_FROZEN", str(copy))
        assert "is not the file that was written" in self.fails(engine, exported)

    def test_a_reward_that_cannot_be_imported(self, freeze_at, prompts, tmp_path):
        section = {"kind": "callable", "function": "no_such_module:reward"}
        texts = {p.id: p.text for p in prompts}
        changed = {"reward": {"name": "bucket", "section": section}}
        folder = freeze_at(tmp_path / "f", texts, np.ones((3, 6)), Identity(), **changed)
        with pytest.raises(ValueError, match="could not be imported"):
            verl.load(folder)


CASES = [
    ({"reward": {"name": "bucket"}}, "recorded by its name alone"),
    (
        {"sampling": {"temperature": 1.0, "max_new_tokens": 4, "stop": ["\n\n"]}},
        "stop at '\\\\n\\\\n'; verl cannot stop at strings",
    ),
    (
        {"sampling": {"temperature": 1.0, "max_new_tokens": 4, "stop": [], "top_p": 0.9}},
        "top_p=0.9",
    ),
    (
        {"sampling": {"temperature": 1.0, "max_new_tokens": 4, "stop": [], "top_k": 50}},
        "top_k=50",
    ),
    ({"policy": {"name": "tiny"}}, "records no model"),
]


class TestRefusals:
    @pytest.mark.parametrize(("facts", "message"), CASES, ids=[message for _, message in CASES])
    def test_what_cannot_be_expressed(self, freeze_at, prompts, tmp_path, facts, message):
        texts = {p.id: p.text for p in prompts}
        folder = freeze_at(tmp_path / "f", texts, np.ones((3, 6)), Identity(), **facts)
        with pytest.raises(ValueError, match=message):
            verl.write_verl(folder, prompts, tmp_path / "verl", batches=ONE)
        assert not (tmp_path / "verl").exists()

    def test_neutral_sampling_is_no_obstacle(self, freeze_at, prompts, tmp_path):
        law = {"temperature": 1.0, "max_new_tokens": 4, "stop": [], "top_p": 1.0, "top_k": -1}
        texts = {p.id: p.text for p in prompts}
        folder = freeze_at(tmp_path / "f", texts, np.ones((3, 6)), Identity(), sampling=law)
        assert verl.write_verl(folder, prompts, tmp_path / "verl", batches=ONE).is_dir()

    def test_beta_that_was_edited(self, frozen, prompts, tmp_path):
        import json
        import shutil

        copy = shutil.copytree(frozen, tmp_path / "copy")
        facts = json.loads((copy / "frozen.json").read_text())
        (copy / "frozen.json").write_text(json.dumps(facts | {"beta": 0.0}))
        with pytest.raises(ValueError, match=r"beta is 0\.0; it must be > 0"):
            verl.write_verl(copy, prompts, tmp_path / "verl", batches=ONE)

    def test_another_chat_template(self, frozen, prompts, tmp_path):
        other = SimpleNamespace(id=prompts[0].id, text=f"<|user|>{prompts[0].text}")
        with pytest.raises(ValueError, match="another chat template"):
            verl.write_verl(frozen, [other], tmp_path / "verl", batches=ONE)

    def test_prompts_that_are_none_or_repeated_or_too_few(self, frozen, prompts, tmp_path):
        for given, message in (([], "no prompts"), ([prompts[0]] * 2, "is repeated")):
            with pytest.raises(ValueError, match=message):
                verl.write_verl(frozen, given, tmp_path / "verl", batches=ONE)
        with pytest.raises(ValueError, match="would never update"):
            verl.write_verl(frozen, prompts, tmp_path / "verl", batches=Batches(prompts=4))
        with pytest.raises(ValueError, match="samples is 1; at least 2, because the baseline"):
            Batches(samples=1)

    def test_a_folder_with_something_else(self, frozen, prompts, exported):
        again = verl.write_verl(frozen, prompts, exported, batches=ONE)
        assert again == exported
        with pytest.raises(ValueError, match=re.escape("(verl.sh would differ)")):
            verl.write_verl(frozen, prompts, exported, batches=Batches(prompts=2))


def test_released_advantages_are_those_of_the_theory(engine, frozen):
    """Leave-one-out of Φ − β·Σ k1, undivided, the same for every token: the released arithmetic."""
    trainer = engine("verl.trainer.ppo.ray_trainer")
    algorithms = engine("verl.trainer.ppo.core_algos")
    asked = verl.settings(FrozenReward.load(frozen), ONE, 9)
    beta, samples, length = asked["algorithm.kl_ctrl.kl_coef"], 4, 5
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 3, 1, 4, 2, 5, 5, 3])
    mask = (torch.arange(length) < lengths[:, None]).float()
    phi = 50 * torch.rand(8, generator=generator, dtype=torch.float64)
    new, old = (torch.randn(8, length, generator=generator) for _ in range(2))
    scores = torch.zeros(8, length, dtype=torch.float64)
    scores[torch.arange(8), lengths - 1] = phi
    batch = {"old_log_probs": new, "ref_log_prob": old, "response_mask": mask}

    class Batch(dict):
        batch_size = (8,)

    data = SimpleNamespace(batch=Batch(batch, token_level_scores=scores))
    control = algorithms.FixedKLController(beta)
    data, _ = trainer.apply_kl_penalty(data, control, asked["algorithm.kl_penalty"])
    estimate = algorithms.get_adv_estimator_fn(asked["algorithm.adv_estimator"])
    index = np.repeat(["a", "b"], samples)
    advantages, _ = estimate(data.batch["token_level_rewards"], mask, index)
    total = (phi - beta * ((new - old) * mask).sum(1)).reshape(2, samples)
    expected = total - (total.sum(1, keepdim=True) - total) / (samples - 1)
    torch.testing.assert_close(advantages, expected.reshape(-1, 1) * mask)
