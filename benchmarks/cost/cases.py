"""The batches that are trained on: real prompts, the reference's own answers, one training reward.

Every contender gets the same prompts, the same token ids and the same training reward, so that a
step of one is a step of the other and only what it costs differs.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from infalign.policies import CausalLM, LoRA
from infalign.prompts import Prompt
from infalign.protocols import Response, Sampling
from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.transforms import Exponential
from infalign.training import CalibratedReward, Problem

__all__ = ["Case", "answered", "policy_of", "problem_of"]

KL = 0.5
"""Mean KL that the training reward's β aims at; says how large advantages are, not how long."""


@dataclasses.dataclass(frozen=True)
class Case:
    """P prompts of a length, K answers to each, capped; and which contenders meet on them."""

    name: str
    """For tables."""
    prompts: int
    """P."""
    prompt_tokens: int
    """Tokens of a prompt, about."""
    k: int
    """K."""
    cap: int
    """Most tokens of an answer, its end included."""
    dtype: str
    """Of the model's body."""
    groups: tuple[tuple[str, ...], ...]
    """Contenders that take turns."""
    turns: int = 3
    """Timed steps of each, after one to warm up."""


class Vowels:
    """Share of vowels, and a little that depends on the text alone: no ties, no time."""

    name = "vowels"

    def __call__(self, prompts: Sequence[str], responses: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array([[self._one(text) for text in row] for row in responses])

    @staticmethod
    def _one(text: str) -> float:
        noise = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16) / 16**6
        return sum(c in "aeiou" for c in text) / (1 + len(text)) + 0.1 * noise


def policy_of(case: Case, *, tiny: bool = False) -> CausalLM:
    """The embedded model, or a tiny random one, with a fresh adapter on all of its layers."""
    sampling = Sampling(1.0, case.cap)
    options: dict[str, Any] = {"lora": LoRA(16, 32.0), "threads": 1, "dtype": case.dtype}
    if tiny:
        from benchmarks.tiny_model import tiny_model

        return CausalLM(*tiny_model(), sampling, **options)
    from infalign.assets import asset_folder

    return CausalLM.from_pretrained(asset_folder("smollm2-135m-instruct"), sampling, **options)


def answered(policy: CausalLM, case: Case, *, tiny: bool = False) -> dict[str, Any]:
    """Prompts of the case's length and K answers of the reference to each, as plain data."""
    texts = ["it is a tender film", "the story"] if tiny else _texts(policy, case)
    with policy.reference():
        answers = policy.sample(texts, case.k, np.random.default_rng(0))
    return {"texts": texts, "answers": [[dataclasses.asdict(a) for a in row] for row in answers]}


def _texts(policy: CausalLM, case: Case) -> list[str]:
    """Openings of film reviews, one after another until a prompt is long enough."""
    from infalign.assets import embedded_prompts

    found, pool = [], iter(embedded_prompts(256, "train"))
    for _ in range(case.prompts):
        text = next(pool)
        while len(policy.codec.encode(longer := f'{text} film."\n{next(pool)}')) <= (
            case.prompt_tokens
        ):
            text = longer
        found.append(text)
    return found


def problem_of(given: dict[str, Any]) -> Problem:
    """The KL-regularised problem on these answers: calibrated, transformed, of KL 0.5."""
    prompts = [Prompt.from_text(text) for text in given["texts"]]
    ids = tuple(prompt.id for prompt in prompts)
    rollouts = [
        [Response(**(a | {"token_ids": tuple(a["token_ids"])})) for a in row]
        for row in given["answers"]
    ]
    rewards = Vowels()(given["texts"], [[r.text for r in row] for row in rollouts])
    calibrated = CalibratedReward(Vowels(), EmpiricalCalibration(ids, rewards), Exponential(3.0))
    return Problem(prompts, calibrated, calibrated.beta_for_kl(KL, ids), rollouts)
