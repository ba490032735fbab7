"""Reference rollouts drawn by an engine: a server, or vLLM in this process.

The engine draws, the local policy trains and measures, so both must be one model under one law.
Before the first rollout the engine is tried on a few prompts, and where it tells tokens and their
log-probabilities these are compared with the local policy's own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from infalign.pipeline import build
from infalign.policies.trial import Trial
from infalign.protocols import Response, Sampling

if TYPE_CHECKING:
    from infalign.pipeline.cluster import MakeReference
    from infalign.pipeline.study import Study

__all__ = ["DrawnBy", "drawer_of", "engine_of", "require_same_model"]


def drawer_of(study: "Study | MakeReference") -> Any:
    """Who draws a study's reference rollouts: its policy, or the engine the experiment names.

    The engine is told apart but not loaded: a study whose rollouts are all drawn goes on where what
    the engine needs is not installed.

    Raises:
        ValueError: the sampling law cannot be told to it.
    """
    experiment, policy = study.experiment, study.policy
    section = experiment.rollouts.engine
    if section is None:
        return policy
    engine = engine_of(section, policy, build.source_of(experiment.policy))
    return DrawnBy(
        policy,
        engine,
        lambda: [prompt.text for side in study.prompts.values() for prompt in side],
        rescore=experiment.training.kind in ("fit", "offline"),
        tolerance=section.tolerance,
        say=study.show.say,
    )


def engine_of(section: Any, policy: Any, source: str) -> Any:
    """The engine an experiment names, with the local policy's law and conventions.

    Args:
        section: the experiment's `rollouts.engine`.
        policy: the local policy.
        source: the folder or id of its weights.

    Raises:
        ValueError: the law cannot be told to it.
    """
    settings = {name: value for name, value in vars(section).items() if name != "kind"}
    del settings["tolerance"]
    model = settings.pop("model") or source
    if section.kind == "vllm":
        from infalign.policies.vllm import VLLM

        return VLLM(model, policy.sampling, policy.codec, **settings)
    from infalign.policies.openai_server import Connection, OpenAIServer

    names = [field.name for field in dataclasses.fields(Connection)]
    connection = Connection(**{name: settings.pop(name) for name in names})
    return OpenAIServer(model, policy.sampling, connection, codec=policy.codec, **settings)


class DrawnBy:
    """The reference as drawn by an engine, a sampler: the policy's law, the engine's work.

    Args:
        policy: the local policy; used with its adapter off.
        engine: draws; under the same sampling law.
        prompts: all that will be asked, checked before the first is.
        rescore: replace log-probabilities by the local policy's own, which training is relative to.
        tolerance: see :func:`require_same_model`.
        say: where to say what was found.
    """

    def __init__(
        self,
        policy: Any,
        engine: Any,
        prompts: Callable[[], Sequence[str]],
        *,
        rescore: bool,
        tolerance: float,
        say: Callable[[str], None],
    ) -> None:
        self.policy, self.engine = policy, engine
        self._prompts, self._rescore = prompts, rescore
        self._tolerance, self._say = tolerance, say
        self._is_checked = False

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name

    @property
    def fingerprint(self) -> str:
        """The policy's and the engine's: kernels of another engine round otherwise."""
        with self.policy.reference():
            return f"{self.policy.fingerprint}-{self.engine.fingerprint}"

    @property
    def sampling(self) -> Sampling:
        """The policy's, and the engine's."""
        return self.policy.sampling

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K responses to each prompt, the engine checked before the first.

        Raises:
            ImportError: what the engine needs is not installed.
            OSError: the engine cannot be reached.
            ValueError: it is another model, or answers under another law.
        """
        if not self._is_checked:
            trial = self.engine.check(self._prompts())
            require_same_model(trial, self.policy, self._tolerance, self._say)
            self._is_checked = True
        responses = self.engine.sample(prompts, k, rng)
        if not self._rescore:
            return responses
        log_probs = self.policy.reference_log_prob(prompts, responses)
        return [
            [
                dataclasses.replace(response, log_prob=float(value))
                for response, value in zip(row, values, strict=True)
            ]
            for row, values in zip(responses, log_probs, strict=True)
        ]


def require_same_model(
    trial: Trial, policy: Any, tolerance: float, say: Callable[[str], None]
) -> None:
    """Refuse an engine whose log-probabilities are not the local policy's.

    Args:
        trial: what the engine answered, and what it says of it.
        policy: the local policy; its reference is compared.
        tolerance: mean |log π_engine − log π_ref| per token, nats; rounding to bfloat16 gives some
            hundredths, another model several tenths.
        say: where to say what was found.

    Raises:
        ValueError: they differ by more.
    """
    known = np.isfinite(trial.reported)
    with_tokens = all(response.token_ids for row in trial.responses for response in row)
    if not (known.all() and with_tokens):
        say(
            "note: the engine tells no tokens with their log-probabilities, so whether it serves "
            "the model of `policy` is checked only by how many tokens it counts in a prompt."
        )
        return
    law = dataclasses.replace(policy.sampling, temperature=trial.temperature)
    local = policy.with_sampling(law).reference_log_prob(trial.prompts, trial.responses)
    tokens = sum(len(response.token_ids) for row in trial.responses for response in row)
    gap = float(np.abs(trial.reported - local).sum()) / tokens
    if not gap <= tolerance:
        raise ValueError(
            f"the engine's log-probabilities differ from the local policy's by {gap:.3f} nats per "
            f"token on {trial.reported.size} responses (rollouts.engine.tolerance is {tolerance}), "
            "so it serves another model than `policy.model`, or tells those of another law "
            "(rollouts.engine.log_probs). Calibration and training would not belong together. "
            "Serve the same model; raise the tolerance only for a known rounding."
        )
    say(f"the engine's log-probabilities agree with the local policy's: {gap:.4f} nats per token.")
