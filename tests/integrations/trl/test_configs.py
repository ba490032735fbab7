"""Configurations hold what the theory needs, and every refusal says which option, what, and why."""

import dataclasses

import pytest
import trl

from infalign.integrations.frozen import FrozenReward
from infalign.integrations.trl import Law, check_config, grpo_config, rloo_config
from infalign.integrations.trl.rules import needed_options

LAW = Law(beta=0.08, temperature=0.8, max_new_tokens=1, stop=("\n",))
MAKE = {"rloo": rloo_config, "grpo": grpo_config}
QUIET = {"use_cpu": True, "bf16": False, "report_to": "none"}

BOTH = [
    ("beta", 0.0, "0.08|0.07"),
    ("beta", 0.05, "another policy"),
    ("temperature", 1.0, "0.8 is needed"),
    ("max_completion_length", 512, "1 is needed"),
    ("top_p", 0.95, "full vocabulary"),
    ("top_k", 50, "full vocabulary"),
    ("min_p", 0.1, "full vocabulary"),
    ("repetition_penalty", 1.1, "full vocabulary"),
    ("vllm_structured_outputs_regex", "a+", "full vocabulary"),
    ("generation_kwargs", {"eos_token_id": [3]}, "hold_to_law"),
    ("generation_kwargs", {"top_k": 4}, "change the sampling law"),
    ("chat_template_kwargs", {"enable_thinking": False}, "rendered without"),
    ("use_transformers_continuous_batching", True, "rounds the weights"),
    ("reward_weights", [0.5, 0.5], "right scale"),
    ("reward_weights", [2.0], "right scale"),
    ("mask_truncated_completions", True, "cut at the cap"),
    ("sync_ref_model", True, "one reference"),
    ("disable_dropout", False, "another model"),
    ("neftune_noise_alpha", 5.0, "another model"),
    ("router_aux_loss_coef", 0.01, "second loss"),
    ("remove_unused_columns", True, "prompt_id"),
]
RLOO = [("normalize_advantages", True, "vanish"), ("reward_clip_range", (0.0, 1.0), "clipped")]
GRPO = [
    ("beta", 0.08, r"\(G − 1\)/G"),
    ("scale_rewards", "group", "spread"),
    ("scale_rewards", "batch", "spread"),
    ("multi_objective_aggregation", "normalize_then_sum", "spread"),
    ("loss_type", "dapo", "length"),
    ("importance_sampling_level", "sequence", "KL"),
    ("use_bias_correction_kl", False, "another gradient"),
    ("num_iterations", 2, "clipped ratios"),
    ("steps_per_generation", 2, "would clip"),
    ("delta", 2.0, "objective"),
    ("top_entropy_quantile", 0.5, "objective"),
    ("entropy_coef", 0.01, "objective"),
    ("use_adaptive_entropy", True, "objective"),
    ("off_policy_mask_threshold", 1.0, "objective"),
]
CASES = [
    (trainer, *case) for trainer, own in (("rloo", RLOO), ("grpo", GRPO)) for case in (*BOTH, *own)
]


@pytest.mark.parametrize(("trainer", "option", "value", "says"), CASES)
def test_an_option_that_leads_elsewhere_is_refused_with_its_reason(trainer, option, value, says):
    with pytest.raises(ValueError, match=says) as refusal:
        MAKE[trainer](LAW, **QUIET, **{option: value})
    first = str(refusal.value).splitlines()[0]
    assert first.startswith(option)
    assert "is needed" in first


@pytest.mark.parametrize("trainer", MAKE)
def test_the_factories_pass_their_own_check(trainer):
    for generations in (2, 8):
        config = MAKE[trainer](LAW, num_generations=generations, **QUIET)
        check_config(config, LAW)
        assert config.num_generations == generations
    assert MAKE[trainer](LAW, learning_rate=3e-4, **QUIET).learning_rate == 3e-4


def test_the_defaults_of_trl_are_refused_with_all_that_is_wrong_at_once():
    with pytest.raises(ValueError, match="scale_rewards is 'group'") as refusal:
        check_config(trl.GRPOConfig(**QUIET), LAW)
    named = [line.split()[0] for line in str(refusal.value).splitlines()]
    assert {"beta", "temperature", "max_completion_length", "loss_type"} <= set(named)
    with pytest.raises(TypeError, match="RLOOConfig or a GRPOConfig"):
        check_config(trl.SFTConfig(**QUIET), LAW)


def test_every_option_held_to_exists_in_trl():
    """A renamed option would be held to no longer."""
    for trainer, kind in (("rloo", trl.RLOOConfig), ("grpo", trl.GRPOConfig)):
        names = {field.name for field in dataclasses.fields(kind)}
        assert set(needed_options(trainer, LAW)) <= names


def test_settings_that_do_no_harm_pass():
    rloo_config(LAW, num_iterations=2, top_k=None, min_p=0.0, reward_weights=[1.0], **QUIET)
    rloo_config(LAW, generation_kwargs={"stop_token_ids": [5]}, chat_template_kwargs={}, **QUIET)
    grpo_config(LAW, scale_rewards=False, **QUIET)


def test_grpo_says_that_longer_responses_end_elsewhere():
    with pytest.warns(UserWarning, match="up to 64 tokens"):
        grpo_config(dataclasses.replace(LAW, max_new_tokens=64), **QUIET)


def test_the_law_is_read_from_a_frozen_reward(bench, frozen_of):
    folder = frozen_of(bench())
    law = Law.of(folder)
    assert law == Law(0.3, 0.9, 4, ('"',)) == Law.of(FrozenReward.load(folder)) == Law.of(law)
    assert rloo_config(folder, **QUIET).beta == 0.3


def test_one_generation_is_no_group():
    with pytest.raises(ValueError, match="2"):
        rloo_config(LAW, num_generations=1, **QUIET)
