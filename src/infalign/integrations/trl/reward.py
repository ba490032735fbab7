"""A frozen reward as TRL calls one: lists in, a list of training rewards out."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from infalign.integrations.engine_files import FROZEN_VARIABLE
from infalign.integrations.frozen import FrozenReward, RewardFunction, is_exact_stop

__all__ = ["ENVIRONMENT", "CalibratedReward", "reward_of_environment"]

ENVIRONMENT = FROZEN_VARIABLE
"""The environment variable that names the frozen reward's folder for the `trl` command line."""


@final
class CalibratedReward:
    """Φ̄ of each completion's rank, for `reward_funcs` of RLOOTrainer and GRPOTrainer.

    The data set needs a column `prompt_id` beside `prompt`. What the reward model and the
    calibration said is logged too: means as `calibrated/reward`, `calibrated/quantile` and
    `calibrated/training_reward`, single values as the columns `raw_reward`, `quantile` and
    `training_reward` of the completions table.

    Args:
        frozen: a frozen reward, or its folder.
        reward: asked instead of the recorded one; it must be the same reward.

    Raises:
        FileNotFoundError: there is no frozen reward.
        ValueError: it is damaged, or of responses whose end cannot be told from their text.
    """

    def __init__(
        self, frozen: FrozenReward | str | Path, reward: RewardFunction | None = None
    ) -> None:
        if isinstance(frozen, FrozenReward):
            if reward is not None:
                raise ValueError(
                    "reward came with a frozen reward that is loaded already; pass it to "
                    "FrozenReward.load, or give the folder here."
                )
        else:
            frozen = FrozenReward.load(frozen, reward)
        _refuse_long_stops(frozen)
        self.frozen = frozen
        self.__name__ = "calibrated_reward"  # in TRL's logs: rewards/calibrated_reward/mean

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        prompt_id: Sequence[str] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Training rewards of M completions, float64.

        Args:
            prompts: M, as TRL has them; the reward is asked with the frozen texts of `prompt_id`.
            completions: M texts, or M lists of one assistant message.
            completion_ids: not needed.
            prompt_id: M ids from the data set's column.
            log_extra: TRL's, for a column of the completions table.
            log_metric: TRL's, for a mean in the log.
            columns: the data set's others, and what later versions of TRL pass.

        Raises:
            ValueError: no `prompt_id`, an id without reference rewards, or a completion that is
                neither text nor one assistant message.
        """
        if prompt_id is None:
            known = sorted(columns.keys() - {"trainer_state"})
            raise ValueError(
                f"the data set has no column prompt_id (TRL passed {known or 'no other column'}); "
                "a reward is calibrated against the reference's on the same prompt. Add the "
                "column, and leave remove_unused_columns at False."
            )
        scored = self.frozen.score(prompt_id, [text_of(completion) for completion in completions])
        columns_of = {
            "raw_reward": scored.rewards,
            "quantile": scored.quantiles,
            "training_reward": scored.training_rewards,
        }
        if log_extra is not None:
            for name, values in columns_of.items():
                log_extra(name, values.tolist())
        if log_metric is not None:
            for name, values in columns_of.items():
                log_metric(f"calibrated/{name.removeprefix('raw_')}", float(np.mean(values)))
        return scored.training_rewards.tolist()


def text_of(completion: Any) -> str:
    """The text of a completion in either of TRL's formats.

    Example:
        >>> text_of([{"role": "assistant", "content": "Yes."}]), text_of("No.")
        ('Yes.', 'No.')
    """
    if isinstance(completion, str):
        return completion
    one = isinstance(completion, Sequence) and len(completion) == 1
    text = completion[0].get("content") if one and isinstance(completion[0], dict) else None
    if isinstance(text, str):
        return text
    raise ValueError(
        f"a completion is {str(completion)[:80]!r}; a text or a list of one assistant message with "
        "text is needed, since the reference rewards are of single answers."
    )


def _refuse_long_stops(frozen: FrozenReward) -> None:
    for stop in frozen.facts["sampling"]["stop"]:
        if not is_exact_stop(stop):
            raise ValueError(
                f"the stored rollouts stop at {stop!r}; one ASCII character is needed where TRL "
                "passes texts: a longer string can be spelt by tokens of which none contains it, "
                "at which the stored responses went on. Train with `training.engine: trl`, which "
                "looks at tokens, or sample with other stop strings."
            )


def reward_of_environment() -> CalibratedReward:
    """The reward of the folder that `INFALIGN_FROZEN` names, its reward function made already.

    Raises:
        ValueError: the variable is not set, or the folder is damaged.
        FileNotFoundError: nothing there.
    """
    folder = os.environ.get(ENVIRONMENT)
    if not folder:
        raise ValueError(
            f"{ENVIRONMENT} is not set; it must name the folder of a frozen reward. In a YAML for "
            f"`trl`, write under `env:` the line `{ENVIRONMENT}: /path/to/frozen`."
        )
    made = CalibratedReward(folder)
    _ = made.frozen.reward  # now, not at the first step
    return made
