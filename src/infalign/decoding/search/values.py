"""What the beginning of a response is worth: by table, by the reward itself, or any callable.

Two values matter. The mean V = E[r | beginning] is what an observer expects; the soft value
V = β·log E[exp(r/β) | beginning] is what KL-regularised control needs: sampling tokens from
π·exp(V/β) then *is* the tilted policy π·exp(r/β)/Z, token by token. By Jensen's inequality the soft
value is the larger, and they differ by Var[r]/2β to first order: a mean steers too timidly where
rewards spread.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol, Self, final, runtime_checkable

import numpy as np
from jaxtyping import Float

from infalign.policies.tabular_lm import TabularLM
from infalign.protocols import LogitPolicy, Reward, Sampler
from infalign.quantile.transforms import refuse_beta

__all__ = ["RewardValue", "TabularValue", "Value", "refuse_vocabulary"]


@runtime_checkable
class Value(Protocol):
    """Maps beginnings of responses to real numbers, higher is better, in the reward's unit."""

    @property
    def name(self) -> str:
        """Short and human."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the numbers."""
        ...

    @property
    def vocabulary(self) -> str:
        """Hash of what each token id means, as a :class:`.LogitPolicy` has it."""
        ...

    def __call__(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "M"]:
        """Values of M beginnings, each of a response to its prompt; ended ones are allowed."""
        ...


def refuse_vocabulary(value: Value, policy: Sampler) -> None:
    """Refuse a value that reads other token ids than the policy writes.

    Raises:
        ValueError: both have a vocabulary, and they differ.
    """
    spoken = getattr(policy, "vocabulary", value.vocabulary)
    if spoken != value.vocabulary:
        raise ValueError(
            f"the value {value.name} reads token ids of the vocabulary {value.vocabulary[:12]} and "
            f"{policy.name} writes those of {spoken[:12]}; give a value made for this policy."
        )


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TabularValue:
    """The exact value of every beginning of a table of tokens.

    Args:
        lm: the table.
        open_values: "P B", of `lm.beginnings`.
        rewards: "P S", of `lm.sequences`: where a response has ended its value is its reward.
        name: what a figure's legend shows.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not finite.

    Example:
        >>> lm = TabularLM(("x",), ("a",), np.array([[[0.5, 0.5]]]))
        >>> rewards = np.array([[0.0, np.log(3.0)]])  # of the empty response, and of "a"
        >>> mean, soft = TabularValue.mean(lm, rewards), TabularValue.soft(lm, rewards, beta=1.0)
        >>> bool(np.isclose(mean(["x"], [()]), np.log(3) / 2)[0])
        True
        >>> bool(np.isclose(soft(["x"], [()]), np.log(0.5 * 1 + 0.5 * 3))[0])
        True
    """

    lm: TabularLM
    open_values: Float[np.ndarray, "P B"]
    rewards: Float[np.ndarray, "P S"]
    name: str = "table of values"

    def __post_init__(self) -> None:
        for field, wanted in (
            ("open_values", (len(self.lm.prompts), len(self.lm.beginnings))),
            ("rewards", (len(self.lm.prompts), len(self.lm.sequences))),
        ):
            found = np.array(getattr(self, field), dtype=np.float64)
            object.__setattr__(self, field, found)
            if found.shape != wanted or not np.isfinite(found).all():
                raise ValueError(
                    f"{field} of shape {found.shape} came, all finite: {np.isfinite(found).all()}; "
                    f"finite numbers of shape {wanted} are needed, one for each place of the table."
                )

    @classmethod
    def mean(cls, lm: TabularLM, rewards: Float[np.ndarray, "P S"]) -> Self:
        """V = E[r | beginning]."""
        values = _backward(lm, rewards, lambda law, after: (law * after).sum(-1))
        return cls(lm, values, rewards, "mean reward to come")

    @classmethod
    def soft(cls, lm: TabularLM, rewards: Float[np.ndarray, "P S"], beta: float) -> Self:
        """V = β·log E[exp(r/β) | beginning]: for this β, what makes controlled decoding exact."""
        refuse_beta(beta)

        def combine(law: np.ndarray, after: np.ndarray) -> np.ndarray:
            top = np.where(law > 0, after, -np.inf).max(-1, keepdims=True)
            return top[..., 0] + beta * np.log((law * np.exp((after - top) / beta)).sum(-1))

        return cls(lm, _backward(lm, rewards, combine), rewards, f"soft reward to come, β={beta:g}")

    @classmethod
    def best(cls, lm: TabularLM, rewards: Float[np.ndarray, "P S"]) -> Self:
        """V = largest reward that can still be reached: the soft value at β → 0."""
        values = _backward(
            lm, rewards, lambda law, after: np.where(law > 0, after, -np.inf).max(-1)
        )
        return cls(lm, values, rewards, "best reward to come")

    @property
    def fingerprint(self) -> str:
        """Hash of the table and of the values."""
        digest = hashlib.sha256(self.lm.fingerprint.encode())
        digest.update(self.open_values.tobytes())
        digest.update(self.rewards.tobytes())
        return digest.hexdigest()

    @property
    def vocabulary(self) -> str:
        """The table's."""
        return self.lm.vocabulary

    def __call__(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "M"]:
        """Values of M beginnings, ended or not."""
        rows, places = self.lm.rows(prompts), self.lm.places
        found = []
        for row, beginning in zip(rows, map(tuple, beginnings), strict=True):
            whole = places.get(beginning)
            if whole is not None:
                found.append(self.rewards[row, whole])
            else:
                found.append(self.open_values[row, self.lm.place(beginning)])
        return np.array(found, dtype=np.float64)


def _backward(
    lm: TabularLM,
    rewards: Float[np.ndarray, "P S"],
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Float[np.ndarray, "P B"]:
    """Values from the ends backwards: combine(next-token law, values after each token)."""
    rewards = np.asarray(rewards, dtype=np.float64)
    v, count = len(lm.tokens), len(lm.beginnings)
    after = np.zeros((len(lm.prompts), count + v**lm.sampling.max_new_tokens))
    after[:, count:] = rewards[:, count:]
    for place in range(count - 1, -1, -1):
        following = after[:, place * v + 1 : place * v + v + 1]
        ended = rewards[:, place, None]
        after[:, place] = combine(lm.laws[:, place], np.concatenate([following, ended], axis=1))
    return after[:, :count]


@final
@dataclasses.dataclass(frozen=True)
class RewardValue:
    """The reward of the text so far. Right for rewards that judge beginnings as they judge wholes.

    Reference:
        ARGS: Alignment as Reward-Guided Search (arXiv:2402.01694).
    """

    reward: Reward
    """Judges the text so far."""
    policy: LogitPolicy
    """Knows what the tokens say."""

    @property
    def name(self) -> str:
        """The reward's."""
        return f"{self.reward.name} so far"

    @property
    def fingerprint(self) -> str:
        """Hash of the policy's vocabulary and the reward's name: a callable has no other."""
        return hashlib.sha256(f"{self.policy.vocabulary} {self.reward.name}".encode()).hexdigest()

    @property
    def vocabulary(self) -> str:
        """The policy's."""
        return self.policy.vocabulary

    def __call__(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]
    ) -> Float[np.ndarray, "M"]:
        """Rewards of the M texts, each distinct text of a prompt judged once."""
        texts = [self.policy.response(tuple(ids), 0.0).text for ids in beginnings]
        asked = list(dict.fromkeys(zip(prompts, texts, strict=True)))
        if not asked:
            return np.zeros(0)
        found = self.reward([prompt for prompt, _ in asked], [[text] for _, text in asked])
        known = dict(zip(asked, np.asarray(found, dtype=np.float64)[:, 0], strict=True))
        return np.array([known[pair] for pair in zip(prompts, texts, strict=True)])
