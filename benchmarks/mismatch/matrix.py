"""Trained for one procedure, decoded by another: measured, planned, and the tilt of the atoms.

Every policy is brought to the same mean KL. A row stands for the procedure that a policy was
trained for with the optimal Φ, a column for the one that decodes both sides.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.arena.measuring import divergences, wins
from benchmarks.arena.planned import law_at, run_of
from benchmarks.arena.runs import Run
from benchmarks.arena.store import Store
from benchmarks.arena.world import Split, World
from benchmarks.prediction.explained import Explained, Prediction, atoms_family, curve_family
from infalign.evaluation import Estimate, paired_difference
from infalign.planner import Mismatch, mismatch
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import RankProcedure

__all__ = ["STRENGTH", "Matrix", "measured_matrix", "method_for", "planned_matrix", "run_for"]

STRENGTH = 1.1
"""Of the runs: a little more than the KL they are read at."""


def method_for(procedure: RankProcedure) -> str:
    """What is trained for a procedure: with one candidate, calibration alone is optimal."""
    return "identity" if procedure.candidates == 1 else "optimal"


def run_for(procedure: RankProcedure, strength: float = STRENGTH) -> Run:
    """The run of a row."""
    return run_of(method_for(procedure), procedure, strength)


def planned_matrix(
    rows: Sequence[RankProcedure], columns: Sequence[RankProcedure], kl: float
) -> tuple[Float[np.ndarray, "R C"], Mismatch]:
    """The planner's matrix, its rows those asked for.

    Example:
        >>> from infalign import BestOfN
        >>> planned_matrix([BestOfN(4)], [BestOfN(1), BestOfN(4)], 1.0)[0].round(3).tolist()
        [[0.774, 0.941]]
    """
    every = {procedure.name: procedure for procedure in (*columns, *rows)}
    found = mismatch(list(every.values()), kl)
    chosen = [found.rows.index(procedure.name) for procedure in rows]
    return found.win_rates[chosen][:, [found.columns.index(p.name) for p in columns]], found


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A world's matrix at one KL."""

    kl: float
    """Mean over prompts. Nats."""
    rows: tuple[RankProcedure, ...]
    """Trained for; those without a run that reaches the KL are left out."""
    columns: tuple[RankProcedure, ...]
    """Decoded by."""
    cells: tuple[tuple[Explained, ...], ...]
    """Measured, with the predictions `planned` (the planner's) and `atoms`."""

    @property
    def planned(self) -> Float[np.ndarray, "R C"]:
        """The planner's matrix: what is shown, what deviations are from, and what ranks rows."""
        return self.win_rates("planned")

    def win_rates(self, stage: str = "measured") -> Float[np.ndarray, "R C"]:
        """Measured, or of a prediction."""
        return np.array(
            [
                [
                    cell.wins.mean() if stage == "measured" else cell.predictions[stage].value
                    for cell in row
                ]
                for row in self.cells
            ]
        )

    def regret(self, column: int) -> tuple[int, int, Estimate]:
        """Of a column: the row that the planner ranks first, the one measured best, the loss.

        The loss is the win rate of the best less that of the planner's, paired by prompt; it is
        not corrected for having looked for the best. As both are read at one mean KL, a prompt
        counts by its influence W_x − λ·(KL_x − KL̄).
        """
        told = int(self.planned[:, column].argmax())
        best = int(self.win_rates()[:, column].argmax())
        of = [_influence(self.cells[row][column]) for row in (best, told)]
        return told, best, paired_difference(*of)

    def plain(self) -> dict[str, Any]:
        """As results keep it."""
        stages = ("planned", "atoms")
        off = {s: [[c.deviation(s) for c in row] for row in self.cells] for s in stages}
        return {
            "kl": self.kl,
            "prompts": len(self.cells[0][0].wins),
            "rows": [procedure.name for procedure in self.rows],
            "columns": [procedure.name for procedure in self.columns],
            "measured": self.win_rates().round(5),
            "planned": self.planned.round(5),
            "atoms": self.win_rates("atoms").round(5),
            "off": _each(off["planned"], "value"),
            "off_se": _each(off["planned"], "se"),
            "off_atoms": _each(off["atoms"], "value"),
            "off_atoms_se": _each(off["atoms"], "se"),
        }


def measured_matrix(
    world: World,
    split: Split,
    rows: Sequence[RankProcedure],
    columns: Sequence[RankProcedure],
    kl: float,
) -> Matrix | None:
    """From the runs that are there; None where none reaches the KL."""
    laws = {p: law_at(world, method_for(p), p, split, kl) for p in rows}
    read = {procedure: law for procedure, law in laws.items() if law is not None}
    if not read:
        return None
    planner, _ = planned_matrix(tuple(read), columns, kl)
    cells = tuple(
        tuple(
            _cell(world, split, procedure, column, law, float(value))
            for column, value in zip(columns, planned, strict=True)
        )
        for (procedure, law), planned in zip(read.items(), planner, strict=True)
    )
    return Matrix(kl, tuple(read), tuple(columns), cells)


def _cell(
    world: World,
    split: Split,
    trained: RankProcedure,
    decoder: RankProcedure,
    law: np.ndarray,
    planner: float,
) -> Explained:
    here = world.rows(split)
    kls = divergences(law, world.law[here])
    kl = float(kls.mean())
    transform = optimal_transform(trained, kl=kl)
    known = Store(world.law[here], world.judges["training"][here])
    exact = atoms_family(world, split, decoder, known.training_rewards(transform))
    curve = Prediction.of(curve_family(transform, decoder, len(law)), kl)
    told = {
        # the planner's number itself; its slope is that of the same curve
        "planned": dataclasses.replace(curve, wins=np.full(len(law), planner)),
        "atoms": Prediction.of(exact, kl),
    }
    return Explained(wins(law, world, split, decoder, "training"), kls, told)


def _influence(cell: Explained) -> Float[np.ndarray, "P"]:
    return cell.wins - cell.predictions["atoms"].slope * (cell.kls - cell.kls.mean())


def _each(estimates: list[list[Estimate]], what: str) -> list[list[float]]:
    return [[round(getattr(estimate, what), 5) for estimate in row] for row in estimates]
