"""Any procedure on finitely many answers, by mirror ascent: here a majority vote of N.

Eight answers, one of them right. A vote does not look at the reward, so the best policy for it
need not be the best for one answer.

    python examples/plan_majority_vote.py --n 5 --kl 0.1
"""

import argparse

import numpy as np

from infalign.quantile.atoms.mirror import mirror_ascent
from infalign.quantile.atoms.voting import MajorityVote

REFERENCE = np.array([0.30, 0.25, 0.15, 0.10, 0.08, 0.06, 0.04, 0.02])
RIGHT = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # the second most frequent answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5, help="votes")
    parser.add_argument("--kl", type=float, default=0.1, help="KL from the reference, nats")
    arguments = parser.parse_args()
    vote, alone = MajorityVote(arguments.n), MajorityVote(1)

    found = {
        f"for {procedure.name}": mirror_ascent(
            REFERENCE, procedure.decoded_masses, RIGHT, kl=arguments.kl
        )
        for procedure in (alone, vote)
    }
    print(f"{'policy':20} {'right, one answer':>18} {'right, ' + vote.name:>20}")
    policies = {"reference": REFERENCE} | {name: one.best.masses for name, one in found.items()}
    for name, masses in policies.items():
        rates = [procedure.decoded_masses(masses) @ RIGHT for procedure in (alone, vote)]
        print(f"{name:20} {rates[0]:18.3f} {rates[1]:20.3f}")

    best = found[f"for {vote.name}"].best
    rewards = ", ".join(f"{x:.2f}" for x in best.training_rewards)
    print(f"\nTrain for the vote on these rewards with beta = {best.beta:.4f}:\n  {rewards}")
    print(f"Residual of the optimum: {best.residual:.0e}")


if __name__ == "__main__":
    main()
