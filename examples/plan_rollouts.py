"""How many calibration rollouts per prompt: what K of them, and no more, leave of the win rate.

python examples/plan_rollouts.py --n 4 --kl 0.5 --loss 0.01
"""

import argparse

from infalign import BestOfN
from infalign.planner.rollouts import rollouts
from infalign.quantile.finite import rollouts_enough


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4, help="candidates per answer")
    parser.add_argument("--kl", type=float, default=0.5, help="KL from the reference, nats")
    parser.add_argument("--loss", type=float, default=0.01, help="win rate you are ready to lose")
    arguments = parser.parse_args()
    procedure, kl = BestOfN(arguments.n), arguments.kl

    print(f"{procedure.name} at KL {kl:g}, the optimal transform calibrated with K rollouts\n")
    print(f"{'K':>4} {'win rate':>9} {'lost':>7} {'of the gain':>12} {'largest KL':>11}")
    for row in rollouts(procedure, kl, [8, 16, 32, 64, 128]):
        print(
            f"{row.k:4} {row.win_rate:9.3f} {row.loss:7.3f} {row.fraction:12.1%} "
            f"{row.largest_kl:11.2f}"
        )
    enough = rollouts_enough("optimal", procedure, kl, arguments.loss)
    print(f"\nK = {enough} loses no more than {arguments.loss:g}.")


if __name__ == "__main__":
    main()
