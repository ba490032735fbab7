"""The record of chains on their way: states, rewards, what was refused for want of a reward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from infalign.decoding.mcmc.diagnostics import effective_samples, split_r_hat
from infalign.decoding.mcmc.kernels import Kernel
from infalign.decoding.mcmc.targets import Target
from infalign.decoding.text_procedure import Scored
from infalign.protocols import Response

__all__ = ["Walk"]


class Walk:
    """M chains, as far as they have come.

    Args:
        states: where they start.
        scored: what the reward says about these.
        target: weighs states.
    """

    def __init__(self, states: Sequence[Response], scored: Scored, target: Target) -> None:
        self._target = target
        self._scores: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._path: list[list[Response]] = []
        self._accepted = 0
        self.unscored: list[dict[str, Any]] = []
        table = self._table(list(states), scored, 1)
        self._keep(list(states), table)

    @property
    def states(self) -> list[Response]:
        """Where each chain is."""
        return self._path[-1]

    def move(
        self,
        proposals: Sequence[Sequence[Response]],
        scored: Scored,
        kernel: Kernel,
        log_choices: Float[np.ndarray, "M C1"],
        rng: np.random.Generator,
    ) -> None:
        """One step of every chain.

        Args:
            proposals: C candidates for each chain.
            scored: what the reward says about them, chain by chain.
            kernel: law of the next state.
            log_choices: log c of the present state (first) and the candidates.
            rng: draws from that law.
        """
        m, tries = len(proposals), len(proposals[0])
        flat = [response for row in proposals for response in row]
        table = self._table(flat, scored, tries).reshape(-1, m, tries)
        # One candidate list: the present state first. Rows of the table: weight, reward, quantile.
        table = np.concatenate([self._now()[:, :, None], table], axis=2)
        law = kernel(table[0] - log_choices)
        heights = rng.random(m)[:, None] * law.sum(1, keepdims=True)
        picks = np.minimum((law.cumsum(1) <= heights).sum(1), tries)
        # A height may round up to the whole: then the last state that can be next.
        last = tries - np.argmax(law[:, ::-1] > 0, axis=1)
        picks = np.minimum(picks, last)
        self._accepted += int((picks > 0).sum())
        nexts = [
            row[pick - 1] if pick else state
            for row, pick, state in zip(proposals, picks.tolist(), self.states, strict=True)
        ]
        self._keep(nexts, table[:, np.arange(m), picks])

    def path(self) -> tuple[Response, ...]:
        """All states, chain by chain."""
        return tuple(state for chain in zip(*self._path, strict=True) for state in chain)

    def rewards(self) -> Float[np.ndarray, "M T1"]:
        """Of the states."""
        return np.stack([scores[0] for scores in self._scores], axis=1)

    def quantiles(self) -> Float[np.ndarray, "M T1"] | None:
        """Of the states, where there was a calibration."""
        if self._scores[0].shape[0] == 1:
            return None
        return np.stack([scores[1] for scores in self._scores], axis=1)

    def can_be_answer(self, burn_in: int) -> Float[np.ndarray, "M T1"]:
        """1 for the states after the first `burn_in` that the target allows, else 0."""
        allowed = np.isfinite(np.stack(self._weights, axis=1)).astype(float)
        allowed[:, :burn_in] = 0.0
        return allowed

    def report(self, burn_in: int) -> dict[str, Any]:
        """Acceptance rate, effective samples and R̂ of the rewards; what had no reward."""
        m, steps = len(self.states), len(self._path) - 1
        traces = self.rewards()[:, burn_in:]
        return {
            "chains": m,
            "steps": steps,
            "burn_in": burn_in,
            "acceptance": self._accepted / (m * steps) if steps else None,
            "effective_samples": effective_samples(traces),
            "r_hat": split_r_hat(traces),
            "unscored": self.unscored,
        }

    def _now(self) -> Float[np.ndarray, "R M"]:
        return np.concatenate([self._weights[-1][None], self._scores[-1]])

    def _keep(self, states: list[Response], table: Float[np.ndarray, "R M"]) -> None:
        self._path.append(states)
        self._weights.append(table[0])
        self._scores.append(table[1:])

    def _table(
        self, responses: Sequence[Response], scored: Scored, tries: int
    ) -> Float[np.ndarray, "R K"]:
        """Log-weight, reward and perhaps quantile of responses; what has no reward is listed."""
        weights = np.asarray(self._target.log_weight(scored), dtype=float)
        weights = np.where(scored.rewards == -np.inf, -np.inf, weights)
        bad = np.isnan(weights) | (weights == np.inf)
        for i in np.flatnonzero(bad).tolist():
            item = {"chain": i // tries, "step": len(self._path), "text": responses[i].text}
            self.unscored.append(item | {"reward": str(float(scored.rewards[i]))})
        rows = [np.where(bad, -np.inf, weights), np.asarray(scored.rewards, dtype=float)]
        return np.stack(rows if scored.quantiles is None else [*rows, scored.quantiles])
