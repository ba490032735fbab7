"""What search procedures share: a node of the search, and how it is judged and expanded.

A node is a response, whole or begun. Whole ones are worth their reward; begun ones what the guide
says: the reward of the text so far, the mean reward of a few completions, or a :class:`.Value`.
"""

import dataclasses
from abc import ABC
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from infalign.decoding.counts import refuse_count
from infalign.decoding.metering import Meter
from infalign.decoding.search.values import Value, refuse_vocabulary
from infalign.decoding.text_procedure import Decoded, Draw, Score, Scored, TextProcedure
from infalign.prompts import Prompt
from infalign.protocols import Response, Reward, Sampler

__all__ = ["ROOT", "GuidedSearch", "Node", "best_of", "has_ended"]


@dataclasses.dataclass(frozen=True)
class Node:
    """A response, whole or begun, and what it is worth."""

    response: Response
    """Its log-probability is that of all its tokens."""
    value: float = 0.0
    """By the guide."""
    reward: float = float("nan")
    """Of a whole response, once the reward was asked. In the reward's unit."""
    quantile: float | None = None
    """Of the reward, where there is a calibration."""


ROOT = Node(Response("", (), 0.0, "limit"))
"""Nothing written yet."""


def has_ended(response: Response) -> bool:
    """Whether nothing can follow it."""
    return response.finish_reason != "limit"


def best_of(scores: Sequence[float], rng: np.random.Generator) -> int:
    """Index of the largest; equals are equally likely."""
    top = np.flatnonzero(np.asarray(scores) == max(scores))
    return int(rng.choice(top))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidedSearch(TextProcedure, ABC):
    """Search over blocks of tokens, guided by what beginnings are worth."""

    block: int | None = 16
    """New tokens an expansion writes; None: to the end, which any sampler can do."""
    value: Value | None = None
    """Judges beginnings and wholes on one scale; None: the reward does."""
    rollouts: int = 0
    """A beginning is worth the mean reward of so many completions; 0: that of the text so far."""
    calibrated: bool = False
    """Whether quantiles under the reference take the place of rewards; needs a calibration."""

    def __post_init__(self) -> None:
        if self.block is not None:
            refuse_count(self.block, "block", "a search over blocks")
        refuse_count(self.rollouts, "rollouts", "a search over blocks", least=0)
        if self.value is not None and self.rollouts:
            raise ValueError(
                f"both a value ({self.value.name}) and {self.rollouts} rollouts came to judge "
                "beginnings by; choose one."
            )

    @property
    def needs_calibration(self) -> bool:
        return self.calibrated

    @property
    def needs_beginnings(self) -> bool:
        return self.block is not None

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        """Refuse a value that reads another vocabulary.

        Raises:
            ValueError: the vocabularies differ.
        """
        if self.value is not None:
            refuse_vocabulary(self.value, policy)

    def grown(
        self, nodes: Sequence[Node], k: int, meter: Meter
    ) -> Generator[Draw | Score, Any, list[list[Response]]]:
        """K responses that go on from each node by one block."""
        draw = Draw(k, tuple(node.response.token_ids for node in nodes), self.block)
        drawn = yield draw
        meter.count(draw, drawn)
        children = []
        for node, row in zip(nodes, drawn, strict=True):
            so_far = node.response.log_prob
            children.append([dataclasses.replace(r, log_prob=so_far + r.log_prob) for r in row])
        return children

    def judged(
        self, responses: Sequence[Response], prompt: Prompt, meter: Meter
    ) -> Generator[Draw | Score, Any, list[Node]]:
        """The responses as nodes: each with its value by the guide."""
        if self.value is not None:
            ids = [response.token_ids for response in responses]
            values = np.asarray(self.value([prompt.text] * len(ids), ids), dtype=np.float64)
            self._refuse(values, responses, prompt, self.value.name)
            return [Node(one, float(v)) for one, v in zip(responses, values, strict=True)]
        groups = [[response] for response in responses]
        places = [i for i, one in enumerate(responses) if self.rollouts and not has_ended(one)]
        if places:
            draw = Draw(self.rollouts, tuple(responses[i].token_ids for i in places))
            drawn = yield draw
            meter.count(draw, drawn)
            for i, row in zip(places, drawn, strict=True):
                groups[i] = row
        flat = [one for group in groups for one in group]
        scored = yield Score(tuple(one.text for one in flat))
        scores = self._scores(scored, flat, prompt)
        starts = np.cumsum([0, *map(len, groups)])
        return [
            _node(one, float(scores[low:high].mean()), scored, low)
            for one, low, high in zip(responses, starts, starts[1:], strict=False)
        ]

    def rewarded(
        self, nodes: Sequence[Node], prompt: Prompt
    ) -> Generator[Draw | Score, Any, list[Node]]:
        """Whole responses with their rewards; asked for only where the guide did not read them."""
        if self.value is None:
            return list(nodes)
        responses = [node.response for node in nodes]
        scored = yield Score(tuple(one.text for one in responses))
        self._scores(scored, responses, prompt)
        return [_node(n.response, n.value, scored, i) for i, n in enumerate(nodes)]

    def score(self, node: Node) -> float:
        """What a whole response is worth: its reward, or the quantile of that."""
        if not self.calibrated:
            return node.reward
        assert node.quantile is not None  # a calibration was asked for
        return node.quantile

    def decoded(
        self, prompt: Prompt, nodes: Sequence[Node], index: int, meter: Meter, **details: Any
    ) -> Decoded:
        """The record of an answer chosen among whole responses."""
        quantiles = tuple(node.quantile for node in nodes if node.quantile is not None)
        return Decoded(
            prompt.id,
            nodes[index].response.text,
            index,
            tuple(node.response for node in nodes),
            tuple(node.reward for node in nodes),
            spent=meter.spent,
            quantiles=quantiles if len(quantiles) == len(nodes) else None,
            details=details,
        )

    def _scores(
        self, scored: Scored, responses: Sequence[Response], prompt: Prompt
    ) -> Float[np.ndarray, "K"]:
        """Rewards, or quantiles where they are asked for; refused where they are no numbers."""
        scores = scored.quantiles if self.calibrated else scored.rewards
        assert scores is not None  # a calibration was asked for
        self._refuse(scores, responses, prompt, "the reward")
        return scores

    def _refuse(
        self,
        values: Float[np.ndarray, "K"],
        responses: Sequence[Response],
        prompt: Prompt,
        judge: str,
    ) -> None:
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f"{judge} says {values[bad[0]]} of {responses[bad[0]].text[:40]!r}, which answers "
                f"prompt {prompt.id!r} or begins to; {self.name} cannot rank by it. Repair it."
            )


def _node(response: Response, value: float, scored: Scored, place: int) -> Node:
    """A node of a whole response with its reward, or of a begun one without."""
    if not has_ended(response):
        return Node(response, value)
    quantile = None if scored.quantiles is None else float(scored.quantiles[place])
    return Node(response, value, float(scored.rewards[place]), quantile)
