"""What can be refused before long work starts: input, models, rewards, lengths."""

import json
from typing import TYPE_CHECKING

import numpy as np

from infalign.config import CallableReward
from infalign.pipeline.build import solvers_of
from infalign.pipeline.cluster import check_cluster
from infalign.pipeline.launching import has_gpu, refuse_unlaunchable
from infalign.rollouts.shards import content_key, write_atomically

if TYPE_CHECKING:
    from infalign.pipeline.study import Study

__all__ = ["check_study", "refuse_constant"]


def check_study(study: "Study") -> None:
    """Load prompts, policy and rewards, try the user's rewards, measure the prompts.

    Raises:
        ValueError: the first thing that cannot work, with what to do about it.
    """
    from infalign.pipeline.reporting import write_manifest

    prompts = [*study.prompts["train"], *study.prompts["held-out"]]
    require_own_prompts(study)
    require_same_prompts(study)
    check_cluster(study.experiment.cluster)
    solvers = [pair for name in study.policies for pair in solvers_of(study.experiment, name)]
    refuse_unlaunchable(study.experiment.training, has_gpu=has_gpu())
    study.policy.contexts([prompt.text for prompt in prompts])
    for _, solver in solvers:
        solver.check(study.policy, study.prompts["train"])
    sections = (study.experiment.reward, study.experiment.gold, *study.experiment.auditors)
    sections = [section for section in sections if section is not None]
    if len(study.judges) < len(sections):
        raise ValueError(
            f"reward, gold and auditors are {len(sections)} rewards but have only the names "
            f"{list(study.judges)}; give each a `name` of its own, so that they are not mixed up."
        )
    for reward, section in zip(study.judges.values(), sections, strict=True):
        if isinstance(section, CallableReward):
            try_reward(reward, prompts[0])
    note_changed_rewards(study)
    write_manifest(study)


def note_changed_rewards(study: "Study") -> None:
    """Say so where a user's function is not the one whose rewards are stored."""
    path = study.folder / "rewards.key"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, reward in study.judges.items():
        source = getattr(reward, "source", None)
        if source is not None and known.setdefault(name, content_key("source", source)) != (
            content_key("source", source)
        ):
            study.show.say(
                f"note: the function of reward {name!r} has changed since rewards were stored; "
                "those stay as they are, and training would mix the two. For a clean run choose "
                "another output folder, or give the reward another name."
            )
    write_atomically(path, json.dumps(known).encode(), study.folder)


def refuse_constant(rewards: np.ndarray, name: str) -> None:
    """A reward that cannot tell any two responses apart teaches nothing.

    Raises:
        ValueError: every prompt's responses all have the same reward.
    """
    if np.ptp(rewards, axis=1).max() == 0:
        raise ValueError(
            f"reward {name!r} gives all responses to a prompt the same value ({rewards[0, 0]} on "
            "the first prompt), on every prompt; there is nothing to train on. Check the reward."
        )


def require_own_prompts(study: "Study") -> None:
    """Refuse a prompt that stands on both sides of the split."""
    ids = {prompt.id for prompt in study.prompts["train"]}
    shared = [prompt for prompt in study.prompts["held-out"] if prompt.id in ids]
    if shared:
        raise ValueError(
            f"prompt {shared[0].id} ({shared[0].text[:40]!r}) is both trained on and held out; "
            "what trains must not judge."
        )


def require_same_prompts(study: "Study") -> None:
    """Refuse a folder whose results belong to what the prompt file held before."""
    sides = {side: [p.id for p in prompts] for side, prompts in study.prompts.items()}
    key, path = content_key("prompts", sides), study.folder / "prompts.key"
    if path.exists() and path.read_text(encoding="utf-8") != key:
        raise ValueError(
            f"{study.folder} holds the results of other prompts: {study.experiment.prompts.path} "
            "has changed since. Choose another output folder, or put the prompts back."
        )
    write_atomically(path, key.encode(), study.folder)


def try_reward(reward, prompt) -> None:
    """Call a user's reward once on two made-up answers, so that a broken one breaks now."""
    answers = [["Yes.", "No, it is not."]]
    try:
        rewards = np.asarray(reward([prompt.text], answers), dtype=float)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{error} (prompt id {prompt.id})") from error
    if rewards.shape != (1, 2) or not np.isfinite(rewards).all():
        raise ValueError(
            f"reward {reward.name!r} gave {rewards.tolist()} for two answers to prompt "
            f"{prompt.id}; it must give one finite number each, shape (1, 2)."
        )
