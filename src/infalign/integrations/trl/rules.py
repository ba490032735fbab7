"""What the theory needs of each option of TRL's trainers, and why."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from infalign.integrations.frozen import FrozenReward

__all__ = ["GENERATIONS", "Law", "Rule", "needed_options", "rules_of"]

GENERATIONS = 8
"""Responses to a prompt, where nothing else is asked for."""


@final
@dataclasses.dataclass(frozen=True)
class Law:
    """What a frozen reward presupposes: the objective's β and how the reference was sampled."""

    beta: float
    """KL coefficient, in training reward per nat. > 0."""
    temperature: float
    """Logits were divided by it."""
    max_new_tokens: int
    """Length cap in tokens."""
    stop: tuple[str, ...] = ()
    """A token whose text contains one of these ended a response."""

    @classmethod
    def of(cls, frozen: "FrozenReward | Law | str | Path") -> "Law":
        """The law of a frozen reward or of its folder; a law itself passes."""
        if isinstance(frozen, Law):
            return frozen
        if not isinstance(frozen, FrozenReward):
            frozen = FrozenReward.load(frozen, verify=False)
        sampling = frozen.facts["sampling"]
        return cls(
            float(frozen.beta),
            float(sampling["temperature"]),
            int(sampling["max_new_tokens"]),
            tuple(sampling["stop"]),
        )


@dataclasses.dataclass(frozen=True)
class Rule:
    """One option, held to what leads to the optimum."""

    option: str
    """Its name."""
    value: Any
    """What a factory sets."""
    why: str
    """What goes wrong otherwise."""
    also: Callable[[Any], bool] = lambda value: False
    """Other values that are as good."""
    needed: str = ""
    """In words, where `value` alone does not say it."""

    def complaint(self, found: Any) -> str | None:
        """What to say of a value; nothing if it is as good."""
        if found == self.value or self.also(found):
            return None
        needed = self.needed or repr(self.value)
        return f"{self.option} is {found!r}; {needed} is needed: {self.why}."


def _is_none_or_zero(value: Any) -> bool:
    return value is None or value == 0


_SINGLE = "the training reward is one function of the right scale, and β is in its unit"
_NOISE = "log π would be that of another model than the one sampled from"
_LAW = "quantiles are those of responses drawn from the full vocabulary, as the reference's were"


def _sampling_rules(law: Law) -> list[Rule]:
    drawn = "the reference was sampled so, and another sampling law is another policy"
    return [
        Rule("temperature", law.temperature, drawn),
        Rule("max_completion_length", law.max_new_tokens, drawn),
        Rule("top_p", 1.0, _LAW),
        Rule("top_k", 0, _LAW, _is_none_or_zero),
        Rule("min_p", None, _LAW, _is_none_or_zero),
        Rule("repetition_penalty", 1.0, _LAW),
        Rule("vllm_structured_outputs_regex", None, _LAW),
        Rule(
            "generation_kwargs",
            None,
            "other keys change the sampling law, and an eos_token_id here ends the text but not "
            "the mask of what is trained on (for stops: `hold_to_law(model, tokenizer, frozen)`)",
            lambda value: not value or set(value) <= {"stop_token_ids"},
            "nothing but vLLM's stop_token_ids",
        ),
        Rule(
            "chat_template_kwargs",
            None,
            "the reference's prompts were rendered without any",
            lambda value: not value,
        ),
        Rule(
            "use_transformers_continuous_batching",
            False,
            "it was not checked against this sampling law, and with bf16 it rounds the weights in "
            "training at every generation",
        ),
    ]


def _common_rules(law: Law) -> list[Rule]:
    return [
        *_sampling_rules(law),
        Rule(
            "num_generations",
            GENERATIONS,
            "responses to a prompt are each other's baseline",
            lambda value: value >= 2,
            "at least 2",
        ),
        Rule("reward_weights", None, _SINGLE, lambda value: list(value or [1.0]) == [1.0]),
        Rule(
            "mask_truncated_completions",
            False,
            "a response cut at the cap is a response of this law; without them another law is "
            "trained",
        ),
        Rule(
            "sync_ref_model", False, "quantiles and KL are relative to one reference, which stays"
        ),
        Rule("disable_dropout", True, f"with dropout, {_NOISE}"),
        Rule(
            "neftune_noise_alpha", None, f"with noise on the embeddings, {_NOISE}", _is_none_or_zero
        ),
        Rule("router_aux_loss_coef", 0.0, "a second loss moves the optimum"),
        Rule("remove_unused_columns", False, "the reward needs the column prompt_id"),
    ]


def _rloo_rules(law: Law) -> list[Rule]:
    return [
        Rule("beta", law.beta, _why_beta(law), lambda value: _is_close(value, law.beta)),
        Rule(
            "normalize_advantages",
            False,
            "advantages vanish at the optimum, and divided by their spread they are noise of size "
            "one there",
        ),
        Rule("reward_clip_range", None, "a clipped Φ is another Φ, with another optimum"),
        *_common_rules(law),
    ]


def _grpo_rules(law: Law, generations: int) -> list[Rule]:
    beta = law.beta * (generations - 1) / generations
    scaled = (
        f"{_why_beta(law)}, and GRPO's baseline, which includes the response itself, weakens the "
        f"reward by (G − 1)/G at G = num_generations = {generations}"
    )
    unit = "it divides Φ by a spread, and β is in the unit of Φ"
    other = "it changes the objective"
    return [
        Rule("beta", beta, scaled, lambda value: _is_close(value, beta)),
        Rule("scale_rewards", "none", unit, lambda value: value is False),
        Rule("multi_objective_aggregation", "sum_then_normalize", unit),
        Rule("loss_type", "dr_grpo", "others weigh responses by length or reshape the ratio"),
        Rule(
            "importance_sampling_level",
            "token",
            "only so is the gradient of the KL term the KL's own",
        ),
        Rule("use_bias_correction_kl", True, "without it the KL term has another gradient"),
        Rule(
            "num_iterations",
            1,
            "clipped ratios cut advantages that do not vanish at the optimum (RLOO may reuse them)",
        ),
        Rule("delta", None, other),
        Rule("top_entropy_quantile", 1.0, other),
        Rule("entropy_coef", 0.0, other),
        Rule("use_adaptive_entropy", False, other),
        Rule("off_policy_mask_threshold", None, other),
        *_common_rules(law),
    ]


def _why_beta(law: Law) -> str:
    return (
        f"the training reward was made for β = {law.beta!r} times the KL of a response, and "
        "another β, 0 above all, leads to another policy"
    )


def _is_close(value: Any, beta: float) -> bool:
    return isinstance(value, int | float) and abs(value - beta) <= 1e-9 * beta


def rules_of(trainer: str, law: Law, generations: int) -> list[Rule]:
    """The rules of `rloo` or `grpo` with so many responses to a prompt."""
    return _rloo_rules(law) if trainer == "rloo" else _grpo_rules(law, generations)


def needed_options(trainer: str, law: Law, generations: int = GENERATIONS) -> dict[str, Any]:
    """What the theory needs of a configuration, by option.

    Example:
        >>> needed_options("grpo", Law(0.08, 1.0, 64))["beta"]
        0.07
    """
    rules = rules_of(trainer, law, generations)
    return {rule.option: rule.value for rule in rules} | {"num_generations": generations}
