"""Finitely many responses to each prompt, with known probabilities: everything exact.

The ground truth of the library: what a language model is estimated to do, a table is known to do.
Sums over responses replace samples, so KL, tilt and win rate carry no error.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Self, final

import numpy as np
from jaxtyping import Float

from infalign.policies.alignment import Alignment, tilted_alignment
from infalign.policies.counts import refuse_draw
from infalign.protocols import Response, Sampling
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.tilting import atoms_kl, tilt_atoms
from infalign.quantile.win_rate import atomic_win_rate

__all__ = ["TabularPolicy"]

_SLACK = 1e-9
"""How far a row may be from summing to 1; what float64 sums of thousands of terms need."""


@final
@dataclasses.dataclass(frozen=True)
class TabularPolicy:
    """π(y_c|x_p) = masses[p, c].

    Raises:
        ValueError: shapes that do not fit, a repeated prompt, negative or non-finite masses, or a
            row that does not sum to 1.

    Example:
        >>> policy = TabularPolicy(("x",), (("no", "yes"),), np.array([[0.75, 0.25]]))
        >>> tilted = policy.tilt(np.array([[0.0, 1.0]]), beta=1.0)
        >>> tilted.masses.round(4).tolist()
        [[0.5246, 0.4754]]
        >>> tilted.kl(policy).round(4).tolist()
        [0.118]
    """

    prompts: tuple[str, ...]
    """P distinct prompts."""
    candidates: tuple[tuple[str, ...], ...]
    """C response texts to each prompt; a text may occur twice, as two responses."""
    masses: Float[np.ndarray, "P C"]
    """Probabilities; rows sum to 1."""
    name: str = "table"
    """What a figure's legend shows."""
    aligned: Alignment | None = None
    """By which reward it was tilted; None: by none, or by one that has no name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "candidates", tuple(tuple(row) for row in self.candidates))
        object.__setattr__(self, "masses", np.array(self.masses, dtype=np.float64))
        shape = (len(self.prompts), len(self.candidates[0]) if self.candidates else 0)
        if self.masses.shape != shape or {len(row) for row in self.candidates} != {shape[1]}:
            raise ValueError(
                f"{len(self.prompts)} prompts and masses of shape {self.masses.shape} came with "
                f"{[len(row) for row in self.candidates][:5]}... responses; every prompt needs as "
                "many responses as the masses have columns."
            )
        if len(set(self.prompts)) != len(self.prompts):
            raise ValueError("a prompt occurs twice; give each prompt one row.")
        sums = self.masses.sum(1)
        wrong = ~np.isfinite(self.masses).all(1) | (self.masses < 0).any(1)
        wrong |= np.abs(sums - 1) > _SLACK
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"masses of prompt {row} are not probabilities: minimum {self.masses[row].min()}, "
                f"sum {sums[row]}. Give finite, non-negative rows that sum to 1."
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of prompts, responses and masses."""
        digest = hashlib.sha256(repr((self.prompts, self.candidates)).encode())
        digest.update(self.masses.tobytes())
        return digest.hexdigest()

    @property
    def sampling(self) -> Sampling:
        """A response is one choice."""
        return Sampling(max_new_tokens=1)

    def responses(self, prompts: Sequence[str]) -> list[list[str]]:
        """The C response texts of each prompt."""
        return [list(self.candidates[row]) for row in self._rows(prompts)]

    def law(self, prompts: Sequence[str]) -> Float[np.ndarray, "P C"]:
        """Probabilities of the responses of the given prompts."""
        return self.masses[self._rows(prompts)]

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts; `token_ids` holds the response's column."""
        refuse_draw(k)
        answers = []
        for row in self._rows(prompts):
            law = self.masses[row] / self.masses[row].sum()
            answers.append([self._response(row, int(c)) for c in rng.choice(len(law), k, p=law)])
        return answers

    def log_prob(
        self, prompts: Sequence[str], responses: Sequence[Sequence[Response]]
    ) -> Float[np.ndarray, "P K"]:
        """log π(y|x). Nats; −∞ for a response of mass 0."""
        rows = np.array(self._rows(prompts))[:, None]
        columns = np.array(
            [
                [self._column(int(row), response) for response in answers]
                for row, answers in zip(rows[:, 0], responses, strict=True)
            ]
        )
        with np.errstate(divide="ignore"):
            return np.log(self.masses[rows, columns])

    def kl(self, other: Self) -> Float[np.ndarray, "P"]:
        """KL(self ‖ other) of each prompt. Nats; infinite where `self` leaves `other`'s support."""
        self._require_same(other)
        return atoms_kl(other.masses, self.masses)

    def tilt(
        self,
        training_rewards: Float[np.ndarray, "P C"],
        beta: float,
        aligned: Alignment | None = None,
    ) -> Self:
        """The policy π·exp(Φ/β)/Z: what KL-regularised training on Φ converges to.

        `aligned` names the reward, for those who would tilt by it again; also after a first tilt.
        """
        aligned = tilted_alignment(self.aligned, aligned, beta)
        masses = tilt_atoms(self.masses, training_rewards, beta)
        name = f"{self.name}, tilted"
        return dataclasses.replace(self, masses=masses, name=name, aligned=aligned)

    def win_rate(
        self,
        reference: Self,
        rewards: Float[np.ndarray, "P C"],
        procedure: RankProcedure,
        reference_procedure: RankProcedure | None = None,
    ) -> Float[np.ndarray, "P"]:
        """Exact win rate over `reference` of each prompt, ties half, both sides decoded."""
        self._require_same(reference)
        return atomic_win_rate(
            self.masses, reference.masses, rewards, procedure, reference_procedure
        )

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {prompt: row for row, prompt in enumerate(self.prompts)}

    def _rows(self, prompts: Sequence[str]) -> list[int]:
        unknown = [prompt for prompt in prompts if prompt not in self._places]
        if unknown:
            raise ValueError(
                f"prompt {unknown[0][:60]!r} is not in this table of {len(self.prompts)} prompts; "
                "a table answers only the prompts it was made with."
            )
        return [self._places[prompt] for prompt in prompts]

    def _response(self, row: int, column: int) -> Response:
        log_prob = float(np.log(self.masses[row, column]))
        return Response(self.candidates[row][column], (column,), log_prob)

    def _column(self, row: int, response: Response) -> int:
        texts = self.candidates[row]
        if len(response.token_ids) == 1 and 0 <= response.token_ids[0] < len(texts):
            return response.token_ids[0]
        if not response.token_ids and response.text in texts:
            return texts.index(response.text)
        raise ValueError(
            f"response {response.text[:40]!r} with token ids {response.token_ids} is none of the "
            f"{len(texts)} responses to prompt {self.prompts[row][:60]!r}."
        )

    def _require_same(self, other: Self) -> None:
        if (self.prompts, self.candidates) != (other.prompts, other.candidates):
            raise ValueError(
                "the two tables have other prompts or responses; compare laws on the same "
                "responses only."
            )
