"""A procedure of your own: two faces and a derivative, checked, then planned like any other.

Here: answer at once if the first response is good enough, else draw another and take the better.

    python examples/own_procedure.py --good-enough 0.5 --kl 0.5
"""

import argparse
import dataclasses

import numpy as np

from infalign import Procedure, plan
from infalign.quantile.procedures import check_procedure


@dataclasses.dataclass(frozen=True)
class SecondThought(Procedure):
    good_enough: float  # quantile, in (0, 1)

    name = "second thought"
    candidates = 2

    @property
    def breaks(self):  # where its law jumps
        return (self.good_enough,)

    def select(self, quantiles, rng):
        quantiles = np.asarray(quantiles)
        return np.where(quantiles[..., 0] >= self.good_enough, 0, quantiles.argmax(axis=-1))

    def decoded_density(self, mesh, density):  # t = 2·F·f below the bar, (1 + F(bar))·f above
        bar, q = self._below_bar(mesh, density)
        return density * np.where(bar, 2 * mesh.below(density), 1 + q[..., None])

    def first_variation(self, mesh, density, worth):  # what ∫ worth·t gains by more f at u
        bar, q = self._below_bar(mesh, density)
        worthy = density * worth
        low, high = (mesh.integral(worthy * side)[..., None] for side in (bar, ~bar))
        rest = low - mesh.below(worthy)
        below = 2 * (worth * mesh.below(density) + rest) + high
        return np.where(bar, below, worth * (1 + q[..., None]))

    def _below_bar(self, mesh, density):
        bar = mesh.u < self.good_enough
        return bar, mesh.integral(density * bar)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--good-enough", type=float, default=0.5, help="quantile of the first")
    parser.add_argument("--kl", type=float, default=0.5, help="KL from the reference, nats")
    arguments = parser.parse_args()
    check_procedure(SecondThought(arguments.good_enough))  # raises where the faces disagree
    print("select, decoded_density and first_variation tell the same story\n")
    for row in plan(SecondThought(arguments.good_enough), arguments.kl):
        print(f"{row.transform:10} beta {row.beta:7.4f}  win rate {row.decoded_win_rate:.3f}")
