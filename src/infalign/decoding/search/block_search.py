"""Beam search over blocks, greedy or by chance: several beginnings are kept, the rest dropped.

Greedy, with a width of one it is blockwise best-of-N; with blocks as long as responses it is
best-of-N, whatever the width. By chance (`beta`), the beginnings kept are particles of sequential
Monte Carlo: their law tends to the tilted policy π·exp(r/β)/Z as the width grows, whatever guides
them; a good guide makes the width that is needed small.
"""

import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, Int

from infalign.decoding.blockwise import BlockwiseBestOfN
from infalign.decoding.counts import refuse_count
from infalign.decoding.metering import Meter
from infalign.decoding.search.guided import (
    ROOT,
    GuidedSearch,
    Node,
    has_ended,
)
from infalign.decoding.text_procedure import Budget, Steps
from infalign.policies.alignment import warn_of_second_tilt
from infalign.prompts import Prompt
from infalign.protocols import Reward, Sampler
from infalign.quantile.transforms import Identity, refuse_beta

__all__ = ["BlockSearch"]


@final
@dataclasses.dataclass(frozen=True)
class BlockSearch(GuidedSearch):
    """Keeps `width` beginnings, writes `expand` blocks after each, and keeps the best again.

    The first level draws width·expand blocks. A response that has ended stays among the kept as
    long as it is among the best. Greedy, equal beginnings are kept once; the answer is the best
    reward among those kept at the end.

    With `beta` nothing is ranked. Of the beginnings written, `width` are drawn (systematic
    resampling) with weights exp((V(beginning) − V(parent))/β), where a response that had ended
    counts as `expand` copies of itself of weight 1; the answer is one of the last particles, drawn
    with weights exp((r − V)/β), which are all 1 where the reward itself guides. The increments
    matter: weights exp(V/β) at every level would count early blocks again and again.

    Args:
        width: beginnings kept. ≥ 1.
        expand: blocks written after each. ≥ 1.
        beta: None: greedy. > 0: by chance, towards the tilt at this β, in the reward's unit.

    Raises:
        ValueError: a count that is none, β that is not positive, or a value and rollouts at once.

    Reference:
        Scaling LLM Test-Time Compute Optimally (arXiv:2408.03314), beams over steps;
        Probabilistic Inference in Language Models via Twisted Sequential Monte Carlo
        (arXiv:2404.17546), particles. There a particle has one child; here `expand`.

    Example:
        >>> BlockSearch(width=2, expand=4, block=8).name
        'block search, 2 × 4 blocks of 8'
    """

    width: int = 4
    """Beginnings kept."""
    expand: int = 4
    """Blocks written after each."""
    beta: float | None = None
    """None: greedy; else the β of the tilt that particles tend to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_count(self.width, "width", "block search")
        refuse_count(self.expand, "expand", "block search")
        if self.beta is not None:
            refuse_beta(self.beta)

    @property
    def name(self) -> str:
        blocks = "responses" if self.block is None else f"blocks of {self.block}"
        chance = "" if self.beta is None else f" at β={self.beta:g}"
        return f"block search{chance}, {self.width} × {self.expand} {blocks}"

    @property
    def most(self) -> int:
        """Per level; how many levels there are shows only in the end."""
        return self.width * self.expand * (1 + self.rollouts)

    def most_within(self, longest: int) -> Budget:
        """What as many blocks at every level cost as there are at the first.

        Example:
            >>> BlockSearch(width=2, expand=4, block=16).most_within(64)
            Budget(responses=32, tokens=512)
        """
        blocks = self.width * self.expand
        return BlockwiseBestOfN(blocks, self.block, self.rollouts).most_within(longest)

    def check(self, policy: Sampler, reward: Reward | None) -> None:
        """Refuse a value of another vocabulary; warn of a second tilt by the same reward."""
        super().check(policy, reward)
        if self.beta is not None and reward is not None:
            transform = Identity() if self.calibrated else None
            warn_of_second_tilt(policy, reward.name, transform, self.beta, "the search")

    @property
    def needs_reward(self) -> bool:
        return self.value is None or self.width > 1

    def steps(self, prompt: Prompt, rng: np.random.Generator) -> Steps:
        meter, kept, levels = Meter(), [ROOT], 0
        while not all(has_ended(node.response) for node in kept):
            begun = [node for node in kept if not has_ended(node.response)]
            k = self.expand if levels else self.expand * self.width
            rows = yield from self.grown(begun, k, meter)
            flat = [response for row in rows for response in row]
            nodes = yield from self.judged(flat, prompt, meter)
            ended = [node for node in kept if has_ended(node.response)]
            before = np.array([n.value for n in ended] + [n.value for n in begun for _ in range(k)])
            copies = np.array([float(self.expand)] * len(ended) + [1.0] * len(nodes))
            kept, levels = self._kept(ended + nodes, before, copies, rng), levels + 1
        if self.needs_reward:
            kept = yield from self.rewarded(kept, prompt)
        index, details = self._choice(kept, rng), {"levels": levels}
        return self.decoded(prompt, kept, index, meter, **details)

    def _kept(
        self,
        nodes: Sequence[Node],
        before: Float[np.ndarray, "M"],
        copies: Float[np.ndarray, "M"],
        rng: np.random.Generator,
    ) -> list[Node]:
        """Who goes on to the next level; `before` are the values of the parents."""
        if self.beta is not None:
            log_weights = (np.array([node.value for node in nodes]) - before) / self.beta
            weights = copies * np.exp(log_weights - log_weights.max())
            return [nodes[i] for i in _resampled(weights, self.width, rng)]
        # A shuffle first: equals are equally likely to be kept, wherever they stand.
        distinct: dict[tuple[int, ...], Node] = {}
        shuffled = [nodes[i] for i in rng.permutation(len(nodes))]
        for node in sorted(shuffled, key=lambda node: -node.value):
            distinct.setdefault(node.response.token_ids, node)
        return list(distinct.values())[: self.width]

    def _choice(self, nodes: Sequence[Node], rng: np.random.Generator) -> int:
        """Which of the whole responses is the answer."""
        if not self.needs_reward:
            return 0
        scores = np.array([self.score(node) for node in nodes])
        if self.beta is None:
            return int(scores.argmax())  # the first: equals stand in random order
        log_weights = (scores - np.array([node.value for node in nodes])) / self.beta
        weights = np.exp(log_weights - log_weights.max())
        return int(rng.choice(len(nodes), p=weights / weights.sum()))


def _resampled(
    weights: Float[np.ndarray, "M"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, "count"]:
    """Systematic resampling: place m is drawn count·w_m/Σw times on average, give or take one."""
    ends = np.cumsum(weights)
    heights = (np.arange(count) + rng.random()) / count * ends[-1]
    last = int(np.flatnonzero(weights)[-1])
    return np.minimum(np.searchsorted(ends, heights, side="right"), last)
