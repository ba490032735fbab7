"""HH-RLHF's harmless prompts, the embedded model's own answers, rewards from people's choices.

The answers are drawn from the model, so π_ref is uniform over what was drawn. An answer that was
drawn twice stands there twice: the two columns tie in every reward, and any law that treats them
alike is a law of the text.

    python -m benchmarks.worlds.harmless        # draws the answers; resumable
"""

import functools
import hashlib

import numpy as np

from benchmarks.arena.runs import FOLDER
from benchmarks.arena.world import Schedule, World
from benchmarks.worlds.choices import ASKED, parts, record, reward
from benchmarks.worlds.data import Pair, harmless_pairs
from benchmarks.worlds.kept import once
from benchmarks.worlds.sampled import rendered, sampled
from infalign.policies import SoftmaxTable, TabularPolicy
from infalign.prompts import Prompt

__all__ = ["harmless", "harmless_prompts"]

ANSWERS, LONGEST = 64, 20
"""Per prompt; tokens of each."""


def harmless_prompts(count: int = ASKED) -> list[str]:
    """Prompt texts by the model's chat template; no head was fitted on their dialogues.

    Raises:
        MissingData: the dialogues are not there.
    """
    return rendered([_messages(pair) for pair in parts(harmless_pairs()).asked[:count]])


@functools.cache
def harmless(k: int | None = None, prompts: int = ASKED) -> World:
    """The table world; see the module. Drawing its answers takes five CPU-seconds a prompt.

    Args:
        k: rollouts per prompt that training gets; None: the law itself.
        prompts: how many, at most 128; the first ones of the same list.

    Raises:
        MissingData: the pairs are not there.
    """
    texts = harmless_prompts(prompts)
    listed = tuple(map(tuple, sampled(texts, ANSWERS, LONGEST)))
    law = np.full((len(texts), ANSWERS), 1 / ANSWERS)
    name = "harmless" if k is None else f"harmless-k{k}"
    table = TabularPolicy(tuple(texts), listed, law, name)
    return World(
        name=name,
        about=f"HH harmless: {len(texts)} dialogues, {ANSWERS} answers of at most {LONGEST} tokens "
        "by SmolLM2-135M-Instruct, uniform reference, a free table; reward and gold: MiniLM and "
        "style heads, each on its half of people's choices",
        prompts=tuple(map(Prompt.from_text, texts)),
        trained=len(texts),
        responses=listed,
        law=law,
        judges=_judges(listed),
        policy=lambda seed: SoftmaxTable(table),
        # More and longer than elsewhere: worst-of-N's Φ falls so steeply near u = 0 that the first
        # gradients are huge, and AdamW steps carefully for long after it has seen those.
        schedule=Schedule(steps=1200, learning_rate=0.3, prompts_per_step=None),
        k=k,
    )


def _judges(listed: tuple[tuple[str, ...], ...]) -> dict[str, np.ndarray]:
    """Rewards by both heads; found once and kept."""
    key = hashlib.sha256(repr(listed).encode()).hexdigest()[:10]
    blank = [""] * len(listed)

    def make() -> dict[str, np.ndarray]:
        return {judge: reward(judge, LONGEST)(blank, listed) for judge in ("training", "gold")}

    return once(FOLDER / "worlds" / f"harmless-{key}.npz", make)


def _messages(pair: Pair) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in pair.dialogue]


def main() -> None:
    """Draws the answers, fits the heads, says how good they are."""
    world = harmless()
    distinct = np.mean([len(set(row)) for row in world.responses])
    print(f"{len(world.prompts)} prompts, {distinct:.1f} distinct of {ANSWERS} answers")
    print(record(LONGEST))


if __name__ == "__main__":
    main()
