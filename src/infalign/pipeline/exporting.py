"""What a study trains on, frozen for engines that train elsewhere."""

import dataclasses
from pathlib import Path
from typing import Any

from infalign.integrations.freezing import freeze
from infalign.pipeline.sampled import SampledStudy
from infalign.pipeline.study import Study

__all__ = ["frozen_reward"]


def frozen_reward(study: Study, folder: str | Path) -> Path:
    """Freeze the training reward of a study whose rollouts are rewarded, and say what it is.

    Args:
        study: on free text, with rewards in its store.
        folder: written to; one with the same content is left as it is.

    Raises:
        ValueError: nothing is sampled in this study, the reward is the same everywhere, or the
            folder holds another frozen reward.
    """
    if not isinstance(study, SampledStudy):
        raise ValueError(
            f"policy is {study.experiment.policy.kind}, whose responses are listed, not sampled; "
            "other engines sample text. Set `policy: causal_lm` to export."
        )
    train = study.prompts["train"]
    rewards = study.reference_rewards()
    return freeze(
        folder,
        prompt_ids=[prompt.id for prompt in train],
        prompts=[prompt.text for prompt in train],
        reference_rewards=rewards,
        rank_means=study.transform.rank_means(rewards.shape[1]),
        facts=_facts(study, rewards.shape[1]),
    )


def _facts(study: SampledStudy, k: int) -> dict[str, Any]:
    experiment, codec = study.experiment, study.policy.codec
    section = dict(vars(experiment.reward))
    training = {"kl": experiment.training.kl}
    training["beta"] = study.beta_of(study.training_reward("infalign"))
    return {
        **training,
        "k": k,
        "reward": {"name": study.reward.name, "section": section},
        "transform": study.transform.name,
        "procedure": study.procedure.name,
        "policy": {
            "name": study.policy.name,
            "model": experiment.policy.model,
            "fingerprint": study.reference_fingerprint(),
        },
        "sampling": dataclasses.asdict(study.policy.sampling)
        | {"stop": list(study.policy.sampling.stop)},
        "end_marks": list(codec.end_marks),
        "special_tokens": list(codec.special_tokens),
    }
