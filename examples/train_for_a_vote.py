"""Training for a procedure no transform is known for: here a majority vote, on a table.

The solver samples, votes on subsets of the samples, and credits each sample with what the vote is
worth with it rather than without it. Mirror ascent knows the best policy there is.

    python examples/train_for_a_vote.py --n 5 --beta 0.1
"""

import argparse

import numpy as np

from infalign.decoding import MajorityVote
from infalign.policies import SoftmaxTable, TabularPolicy
from infalign.prompts import Prompt
from infalign.quantile.atoms.mirror import mirror_ascent
from infalign.quantile.atoms.voting import MajorityVote as VoteLaw
from infalign.training import Descent, OnlineDecoded, Problem, RawReward

ANSWERS = ("12", "42", "7", "24", "21")
REFERENCE = np.array([0.35, 0.30, 0.15, 0.12, 0.08])


class IsRight:
    name = "is right"

    def __call__(self, prompts, responses):
        return np.array([[float(text == "42") for text in row] for row in responses])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5, help="votes")
    parser.add_argument("--beta", type=float, default=0.1, help="win rate per nat of KL")
    given = parser.parse_args()
    right, law = np.array([float(text == "42") for text in ANSWERS]), VoteLaw(given.n)

    policy = SoftmaxTable(TabularPolicy(("6 × 7 =",), (ANSWERS,), REFERENCE[None]))
    reward = RawReward(IsRight(), ("a",), np.array([[0.0, 1.0]]))
    problem = Problem([Prompt("a", "6 × 7 =")], reward, given.beta)
    descent = Descent(steps=200, learning_rate=0.05, schedule="linear")
    solver = OnlineDecoded(MajorityVote(given.n), descent, k=3 * given.n, opponents=1000)
    solver.train(policy, problem, rng=np.random.default_rng(0))

    best = mirror_ascent(REFERENCE, law.decoded_masses, right, beta=given.beta).best
    rows = {"reference": REFERENCE, "trained": policy.snapshot().masses[0], "best": best.masses}
    print(f"{'policy':10} {'right, one answer':>18} {'right, ' + law.name:>20} {'KL':>7}")
    for name, masses in rows.items():
        kl = float((masses * np.log(masses / REFERENCE)).sum())
        rates = masses @ right, law.decoded_masses(masses) @ right
        print(f"{name:10} {rates[0]:18.3f} {rates[1]:20.3f} {kl:7.3f}")


if __name__ == "__main__":
    main()
