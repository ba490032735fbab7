"""A masked model as a table: every law of some sites given the others is exact.

The ground truth for chains that erase sites and fill them again: unlike a learned masked model, its
conditionals belong to one law, whatever is erased.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Self, final

import numpy as np
from jaxtyping import Float

from infalign.policies.counts import refuse_count, refuse_draw
from infalign.policies.tabular import TabularPolicy
from infalign.protocols import Response, Sampling

__all__ = ["MaskedTable"]

_SLACK = 1e-9

Gaps = tuple[int | None, ...]


@final
@dataclasses.dataclass(frozen=True, eq=False)
class MaskedTable:
    """π(y|x_p) = masses[p, s] over all V^L sequences of L tokens, in the order of numbers.

    Args:
        prompts: P distinct prompts.
        tokens: V texts; no two alike, none empty.
        length: L ≥ 1, of every response; none has an end-of-sequence.
        masses: "P V^L"; rows sum to 1.
        name: what a figure's legend shows.

    Raises:
        ValueError: shapes that do not fit, or rows that are not probabilities.

    Example:
        >>> model = MaskedTable(("x",), ("a", "b"), 2, np.array([[0.1, 0.2, 0.3, 0.4]]))
        >>> model.sequences
        ((0, 0), (0, 1), (1, 0), (1, 1))
        >>> places, law = model.fillings("x", (None, 1))
        >>> places.tolist(), law.round(4).tolist()
        ([1, 3], [0.3333, 0.6667])
    """

    prompts: tuple[str, ...]
    tokens: tuple[str, ...]
    length: int
    masses: Float[np.ndarray, "P S"]
    name: str = "masked table"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "tokens", tuple(self.tokens))
        object.__setattr__(self, "masses", np.array(self.masses, dtype=np.float64))
        refuse_count(self.length, "length", "a masked table (tokens of every response)")
        shape = (len(set(self.prompts)), len(self.tokens) ** self.length)
        if self.masses.shape != shape:
            raise ValueError(
                f"masses of shape {self.masses.shape} came; {shape} is needed: one row for each "
                f"distinct prompt, one column for each of {shape[1]} sequences."
            )
        sums = self.masses.sum(1)
        if not (self.masses >= 0).all() or np.abs(sums - 1).max() > _SLACK:
            raise ValueError("masses are not probabilities: give rows ≥ 0 that sum to 1.")

    @classmethod
    def random(
        cls,
        prompts: Sequence[str],
        tokens: Sequence[str],
        length: int,
        rng: np.random.Generator,
        spread: float = 1.0,
    ) -> Self:
        """Masses softmax(spread·normal): every site depends on every other."""
        logits = spread * rng.standard_normal((len(prompts), len(tokens) ** length))
        masses = np.exp(logits - logits.max(1, keepdims=True))
        masses /= masses.sum(1, keepdims=True)
        return cls(tuple(prompts), tuple(tokens), length, masses)

    @property
    def sampling(self) -> Sampling:
        """Temperature 1, the fixed length."""
        return Sampling(max_new_tokens=self.length)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of prompts, tokens and masses."""
        digest = hashlib.sha256(repr((self.prompts, self.tokens, self.length)).encode())
        digest.update(self.masses.tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """S responses as tokens."""
        return tuple(itertools.product(range(len(self.tokens)), repeat=self.length))

    @functools.cached_property
    def places(self) -> dict[tuple[int, ...], int]:
        """Sequence → its column in `masses`."""
        return {sequence: place for place, sequence in enumerate(self.sequences)}

    def texts(self) -> list[str]:
        """Text of each of the :attr:`sequences`."""
        return ["".join(self.tokens[t] for t in sequence) for sequence in self.sequences]

    def table(self) -> TabularPolicy:
        """The same policy as a table over whole responses."""
        texts = tuple(self.texts())
        return TabularPolicy(self.prompts, (texts,) * len(self.prompts), self.masses, self.name)

    def fillings(self, prompt: str, erased: Gaps) -> tuple[np.ndarray, Float[np.ndarray, "F"]]:
        """Columns of the sequences that agree with what is left, and their law given it.

        Raises:
            ValueError: a sequence of another length, an unknown token, or one of mass 0 whatever
                fills the gaps.
        """
        v = len(self.tokens)
        if len(erased) != self.length or any(t is not None and not 0 <= t < v for t in erased):
            raise ValueError(
                f"a sequence {erased} came; {self.length} tokens from 0 to {v - 1} are needed, "
                "None at each gap."
            )
        shape = (v,) * self.length
        kept = tuple(slice(None) if t is None else t for t in erased)
        places = np.arange(v**self.length).reshape(shape)[kept].ravel()
        law = self.masses[self._row(prompt), places]
        if not law.sum() > 0:
            raise ValueError(f"what is left of {erased} has no mass, whatever fills the gaps.")
        return places, law / law.sum()

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return self.redraw(prompts, [(None,) * self.length] * len(prompts), k, rng)

    def redraw(
        self,
        prompts: Sequence[str],
        erased: Sequence[Sequence[int | None]],
        k: int,
        rng: np.random.Generator,
    ) -> list[list[Response]]:
        """K independent fillings of each of M responses with gaps, by the exact conditional.

        Raises:
            ValueError: k below 1, or a sequence that :meth:`fillings` refuses.
        """
        refuse_draw(k)
        known: dict[tuple[str, Gaps], tuple[list[Response], np.ndarray]] = {}
        heights = rng.random((len(prompts), k))
        drawn = []
        for prompt, gaps, height in zip(prompts, map(tuple, erased), heights, strict=True):
            if (prompt, gaps) not in known:
                known[prompt, gaps] = self._answers(prompt, gaps)
            responses, steps = known[prompt, gaps]
            drawn.append([responses[i] for i in steps.searchsorted(height, "right").tolist()])
        return drawn

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π(y|x). Nats; −∞ for a response of mass 0."""
        rows = np.array([self._row(prompt) for prompt in prompts], dtype=int)
        columns = [[self.places[response.token_ids] for response in row] for row in responses]
        with np.errstate(divide="ignore"):
            return np.log(self.masses[rows[:, None], np.array(columns)])

    def _answers(self, prompt: str, gaps: Gaps) -> tuple[list[Response], np.ndarray]:
        """Fillings that can occur, and the cumulated law they are looked up in."""
        places, law = self.fillings(prompt, gaps)
        places, law = places[law > 0], law[law > 0]
        ids = [self.sequences[place] for place in places]
        texts = ["".join(self.tokens[t] for t in sequence) for sequence in ids]
        nats = np.log(law).tolist()
        responses = [Response(*all_, "length") for all_ in zip(texts, ids, nats, strict=True)]
        return responses, law.cumsum()[:-1]  # without the last: heights may round up to it

    def _row(self, prompt: str) -> int:
        try:
            return self.prompts.index(prompt)
        except ValueError:
            raise ValueError(
                f"prompt {prompt[:60]!r} is not in this table of {len(self.prompts)} prompts; a "
                "table answers only the prompts it was made with."
            ) from None
