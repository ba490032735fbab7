"""A language model as a table: every next-token law is written down, so every sequence is known.

The ground truth for procedures that look inside a response: chains that rewrite its end, search
that values its beginning, policies combined token by token. What a language model does by sampling
is here an exact sum over some hundreds of sequences.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Self, final

import numpy as np
from jaxtyping import Float

from infalign.policies.alignment import Alignment, tilted_alignment
from infalign.policies.counts import refuse_draw
from infalign.policies.table_laws import laws_of_masses, masses_of_laws
from infalign.policies.tabular import TabularPolicy
from infalign.policies.tabular_stream import TabularStream
from infalign.protocols import Response, Sampling
from infalign.quantile.tilting import tilt_atoms

__all__ = ["TabularLM"]

_SLACK = 1e-9


@final
@dataclasses.dataclass(frozen=True, eq=False)
class TabularLM:
    """π(token | x_p, y_<t) = laws[p, b], b the place of y_<t among all beginnings.

    Tokens are 0 … V−1 and the end-of-sequence V. A response ends with it, or after
    `max_new_tokens` tokens, whichever comes first. Beginnings stand by length, then like numbers.

    Args:
        prompts: P distinct prompts.
        tokens: V texts; no two alike, none empty.
        laws: "P B V+1", B = 1 + V + … + V^(max_new_tokens − 1); rows sum to 1.
        name: what a figure's legend shows.
        aligned: by which reward it was tilted, where that has a name.

    Raises:
        ValueError: shapes that do not fit, or rows that are not probabilities.

    Example:
        >>> lm = TabularLM(("x",), ("a", "b"), np.full((1, 3, 3), 1 / 3))
        >>> lm.sequences
        ((2,), (0, 2), (1, 2), (0, 0), (0, 1), (1, 0), (1, 1))
        >>> lm.masses.round(4).tolist()
        [[0.3333, 0.1111, 0.1111, 0.1111, 0.1111, 0.1111, 0.1111]]
    """

    prompts: tuple[str, ...]
    tokens: tuple[str, ...]
    laws: Float[np.ndarray, "P B V1"]
    name: str = "table of tokens"
    aligned: Alignment | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "tokens", tuple(self.tokens))
        object.__setattr__(self, "laws", np.array(self.laws, dtype=np.float64))
        wrong = self.laws.ndim != 3 or self.laws.shape[2] != len(self.tokens) + 1
        if wrong or len(self.laws) != len(self.prompts) or len(set(self.prompts)) < len(self.laws):
            raise ValueError(
                f"{len(self.prompts)} prompts and {len(self.tokens)} tokens came with laws of "
                f"shape {self.laws.shape}; one row a distinct prompt is needed, and in the last "
                "axis one probability a token and one for the end."
            )
        if self.longest is None:
            raise ValueError(
                f"{self.laws.shape[1]} beginnings came for {len(self.tokens)} tokens; "
                "1 + V + V² + … are needed, one for each beginning below the length cap."
            )
        if not (self.laws >= 0).all() or np.abs(self.laws.sum(-1) - 1).max() > _SLACK:
            raise ValueError("a next-token law is not one: give rows ≥ 0 that sum to 1.")

    @classmethod
    def random(
        cls,
        prompts: Sequence[str],
        tokens: Sequence[str],
        max_new_tokens: int,
        rng: np.random.Generator,
        spread: float = 1.0,
    ) -> Self:
        """Next-token laws softmax(spread·normal): a language model nobody has seen before."""
        count = sum(len(tokens) ** length for length in range(max_new_tokens))
        logits = spread * rng.standard_normal((len(prompts), count, len(tokens) + 1))
        laws = np.exp(logits - logits.max(-1, keepdims=True))
        return cls(tuple(prompts), tuple(tokens), laws / laws.sum(-1, keepdims=True))

    @classmethod
    def from_masses(
        cls, like: "TabularLM", masses: Float[np.ndarray, "P S"], name: str | None = None
    ) -> "TabularLM":
        """The language model whose `masses` these are: sums over what may follow, divided.

        Beginnings that cannot occur keep the laws of `like`.
        """
        laws = laws_of_masses(np.asarray(masses, dtype=np.float64), like.laws)
        return cls(like.prompts, like.tokens, laws, name or like.name)

    @functools.cached_property
    def longest(self) -> int | None:
        """The length cap that the number of beginnings tells."""
        total, length = 0, 0
        while total < self.laws.shape[1]:
            total, length = total + len(self.tokens) ** length, length + 1
        return length if total == self.laws.shape[1] else None

    @functools.cached_property
    def sampling(self) -> Sampling:
        """Temperature 1, the table's length cap."""
        return Sampling(max_new_tokens=self.longest or 1)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of prompts, tokens and laws."""
        digest = hashlib.sha256(repr((self.prompts, self.tokens)).encode())
        digest.update(self.laws.tobytes())
        return digest.hexdigest()

    @property
    def vocabulary(self) -> str:
        """Hash of the tokens."""
        return hashlib.sha256(repr(self.tokens).encode()).hexdigest()

    @property
    def end(self) -> int:
        """The token that ends a response."""
        return len(self.tokens)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Only :attr:`end`."""
        return frozenset({self.end})

    @functools.cached_property
    def beginnings(self) -> tuple[tuple[int, ...], ...]:
        """B token sequences that have not ended, in the order of `laws`."""
        v, depth = range(len(self.tokens)), self.sampling.max_new_tokens
        return tuple(b for n in range(depth) for b in itertools.product(v, repeat=n))

    @functools.cached_property
    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """S responses as tokens: each beginning with its end, then those the cap cuts."""
        v, depth = range(len(self.tokens)), self.sampling.max_new_tokens
        cut = itertools.product(v, repeat=depth)
        return (*((*b, self.end) for b in self.beginnings), *cut)

    @functools.cached_property
    def places(self) -> dict[tuple[int, ...], int]:
        """Sequence → its column in :attr:`masses`."""
        return {sequence: place for place, sequence in enumerate(self.sequences)}

    @functools.cached_property
    def masses(self) -> Float[np.ndarray, "P S"]:
        """π(y|x) of each of the :attr:`sequences`."""
        return masses_of_laws(self.laws)

    def text(self, token_ids: Sequence[int]) -> str:
        """The tokens' texts, one after the other; the end has none."""
        end = self.end
        return "".join([self.tokens[i] for i in token_ids if i != end])

    def texts(self) -> list[str]:
        """Text of each of the :attr:`sequences`."""
        return [self.text(sequence) for sequence in self.sequences]

    def table(self) -> TabularPolicy:
        """The same policy as a table over whole responses."""
        texts = tuple(self.texts())
        return TabularPolicy(self.prompts, (texts,) * len(self.prompts), self.masses, self.name)

    def tilt(
        self,
        training_rewards: Float[np.ndarray, "P S"],
        beta: float,
        aligned: Alignment | None = None,
    ) -> "TabularLM":
        """The policy π·exp(Φ/β)/Z, as a language model again.

        `aligned` names the reward, for those who would tilt by it again; also after a first tilt.
        """
        masses = tilt_atoms(self.masses, training_rewards, beta)
        tilted = TabularLM.from_masses(self, masses, f"{self.name}, tilted")
        return dataclasses.replace(tilted, aligned=tilted_alignment(self.aligned, aligned, beta))

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts."""
        return self.continue_from(prompts, [()] * len(prompts), k, rng)

    def continue_from(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[Sequence[int]],
        k: int,
        rng: np.random.Generator,
        *,
        limit: int | None = None,
    ) -> list[list[Response]]:
        """K independent responses that begin so, to each of M pairs of a prompt and a beginning.

        Raises:
            ValueError: a count below 1, or a beginning that nothing can follow.
        """
        refuse_draw(k, limit)
        v, depth = len(self.tokens), self.sampling.max_new_tokens
        rows = np.repeat(self.rows(prompts), k)
        place = np.repeat(self._begun(prompts, beginnings), k)
        start = np.repeat([len(beginning) for beginning in beginnings], k)
        written = np.full((len(rows), depth), -1)
        log_prob = np.zeros(len(rows))
        open_ = np.arange(len(rows))
        cuts = np.minimum(depth, start + (depth if limit is None else limit))
        while len(open_):
            law = self.laws[rows[open_], place[open_]]
            heights = rng.random(len(open_))[:, None] * law.sum(1, keepdims=True)
            # A height may round up to the whole: then the last token that can occur.
            last = v - np.argmax(law[:, ::-1] > 0, axis=1)
            token = np.minimum((law.cumsum(1) <= heights).sum(1), last)
            at = start[open_] + (written[open_] >= 0).sum(1)
            written[open_, at - start[open_]] = token
            log_prob[open_] += np.log(law[np.arange(len(open_)), token])
            place[open_] = place[open_] * v + 1 + token
            open_ = open_[(token != self.end) & (at + 1 < cuts[open_])]
        firsts = [tuple(beginning) for beginning in beginnings]
        made = [
            self.response((*firsts[i // k], *(t for t in row if t >= 0)), nats)
            for i, (row, nats) in enumerate(zip(written.tolist(), log_prob.tolist(), strict=True))
        ]
        return [made[i * k : (i + 1) * k] for i in range(len(beginnings))]

    def response(self, token_ids: Sequence[int], log_prob: float) -> Response:
        """A response from its tokens."""
        ids = tuple(token_ids)
        ended = bool(ids) and ids[-1] == self.end
        cut = "length" if len(ids) == self.longest else "limit"
        return Response(self.text(ids), ids, log_prob, "stop" if ended else cut)

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π(y|x). Nats; −∞ for a response of mass 0."""
        columns = [[self.places[response.token_ids] for response in row] for row in responses]
        with np.errstate(divide="ignore"):
            return np.log(self.masses[self.rows(prompts)[:, None], np.array(columns)])

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> TabularStream:
        """Start writing a response to each of R prompts."""
        begun = [()] * len(prompts) if beginnings is None else beginnings
        return TabularStream(self.laws, self.rows(prompts), self._begun(prompts, begun))

    def rows(self, prompts: Sequence[str]) -> np.ndarray:
        """Rows of `laws` and `masses` of the given prompts."""
        known = {prompt: row for row, prompt in enumerate(self.prompts)}
        unknown = [prompt for prompt in prompts if prompt not in known]
        if unknown:
            raise ValueError(
                f"prompt {unknown[0][:60]!r} is not in this table of {len(known)} prompts; a "
                "table answers only the prompts it was made with."
            )
        return np.array([known[prompt] for prompt in prompts], dtype=int)

    def place(self, beginning: Sequence[int]) -> int:
        """Place of a beginning among the :attr:`beginnings`.

        Raises:
            ValueError: one that has ended, fills the length cap or has unknown tokens.
        """
        place = self._open.get(tuple(beginning))
        if place is None:
            raise ValueError(
                f"a beginning {tuple(beginning)} came; fewer than {self.sampling.max_new_tokens} "
                f"tokens (the length cap) below {self.end} (the end) are needed, or nothing can "
                "follow it."
            )
        return place

    @functools.cached_property
    def _open(self) -> dict[tuple[int, ...], int]:
        return {beginning: place for place, beginning in enumerate(self.beginnings)}

    def _begun(self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]) -> np.ndarray:
        """The place of each beginning, one to each prompt."""
        if len(beginnings) != len(prompts):
            raise ValueError(
                f"{len(beginnings)} beginnings came for {len(prompts)} prompts; give one each."
            )
        return np.array([self.place(beginning) for beginning in beginnings], dtype=int)
