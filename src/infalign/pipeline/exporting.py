"""What a study trains on, frozen for engines that train elsewhere."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Literal

from infalign.integrations.decoding import Sampled
from infalign.integrations.engine_files import Batches, refuse_sampling
from infalign.integrations.freezing import freeze
from infalign.pipeline.sampled import SampledStudy
from infalign.pipeline.stages import reward
from infalign.pipeline.study import Study

__all__ = ["Engine", "export", "frozen_reward"]

Engine = Literal["trl", "verl", "openrlhf"]

CHECKED_PROMPTS, CHECKED_RESPONSES = 64, 8
"""Stored responses that an engine's decoding is tried on."""


def frozen_reward(study: Study, folder: str | Path) -> Path:
    """Freeze the training reward of a study whose rollouts are rewarded, and say what it is.

    Args:
        study: on free text, with rewards in its store.
        folder: written to; one with the same content is left as it is.

    Raises:
        ValueError: nothing is sampled in this study, its procedure has no transform, the reward is
            the same everywhere, or the folder holds another frozen reward.
    """
    study = sampled(study)
    refuse_untransformed(study)
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


def refuse_untransformed(study: Study) -> None:
    """Raise ValueError where training is on the win rate after decoding itself."""
    if study.text_procedure is not None:
        raise ValueError(
            f"{study.procedure.name} has no transform that could be frozen: it is trained for on "
            "decoded answers, which engines do not do. Train it here: `infalign train`."
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
            "model": study.policy.source,
            "fingerprint": study.reference_fingerprint(),
        },
        "sampling": dataclasses.asdict(study.policy.sampling)
        | {"stop": list(study.policy.sampling.stop)},
        "end_marks": list(codec.end_marks),
        # Longest first: one may be part of another.
        "special_tokens": sorted(codec.special_tokens, key=len, reverse=True),
    }


def sampled(study: Study) -> SampledStudy:
    """The study, if it is one that other engines could go on with."""
    if isinstance(study, SampledStudy):
        return study
    raise ValueError(
        f"policy is {study.experiment.policy.kind}, whose responses are listed, not sampled; other "
        "engines sample text. Set `policy: causal_lm` to export."
    )


def export(
    study: Study,
    engine: Engine,
    folder: str | Path,
    *,
    model: str | None = None,
    prompts_per_step: int | None = None,
    samples: int | None = None,
    epochs: int = 1,
    trainer: Literal["rloo", "grpo"] = "rloo",
) -> Path:
    """Write what an engine needs to train on a study's reward: `frozen/` and `<engine>/`.

    Args:
        study: whose missing rollouts and rewards are made, once nothing is left to refuse.
        engine: whose files are written.
        folder: holds both folders, so that they move together.
        model: path or name of the weights the engine starts from; by default the experiment's.
        prompts_per_step: in one update; by default the experiment's, or all up to 32.
        samples: responses to each prompt in one update; by default the experiment's, or 8.
        epochs: times every prompt is visited.
        trainer: of TRL's.

    Returns:
        The file to start training with.

    Raises:
        ValueError: a setting the engine cannot express or that would break the theory; a folder
            that holds something else.
    """
    training, train = study.experiment.training, study.prompts["train"]
    drawn = samples or getattr(training, "samples_per_prompt", None) or 8
    per_step = prompts_per_step or training.prompts_per_step or min(32, len(train))
    batches = Batches(per_step, drawn, epochs)
    study = _refusing(study, engine, batches)
    refuse_untransformed(study)
    reward(study)
    frozen, where = frozen_reward(study, Path(folder) / "frozen"), Path(folder) / engine
    codec = study.policy.codec
    asked: dict[str, Any] = {
        "model": model or study.policy.source,
        "batches": batches,
        "prompt_tokens": max(len(codec.encode(prompt.text)) for prompt in train),
    }
    if engine == "trl":
        from infalign.integrations.trl.export import write_trl

        return write_trl(frozen, train, where, trainer=trainer, **asked) / f"{trainer}.yaml"
    module = importlib.import_module(f"infalign.integrations.{engine}")
    write = getattr(module, f"write_{engine}")
    asked |= {"context": codec.context_text, "tokenizer": codec.tokenizer}
    return write(frozen, train, where, sampled=_some(study), **asked) / f"{engine}.sh"


def _some(study: SampledStudy) -> list[Sampled]:
    """Stored responses by which an export sees whether an engine would read them as we did."""
    prompts = study.prompts["train"][:CHECKED_PROMPTS]
    k = min(CHECKED_RESPONSES, study.reference_rewards().shape[1])
    stored = zip(prompts, study.store.responses(prompts, k), strict=True)
    return [Sampled(p.id, r.token_ids, r.text) for p, row in stored for r in row]


def _refusing(study: Study, engine: Engine, batches: Batches) -> SampledStudy:
    """The study, unless something can be seen before hours of sampling that cannot work."""
    study = sampled(study)
    batches.check(study.prompts["train"])
    names = {"trl": "TRL", "verl": "verl", "openrlhf": "OpenRLHF"}
    refuse_sampling(dataclasses.asdict(study.policy.sampling), names[engine])
    if engine == "trl":
        from infalign.integrations.trl.configs import import_trl

        import_trl()
    return study
