"""Before training: what each transform would win at best-of-N, and what a wrong N costs.

python examples/plan_best_of_n.py --n 4 --kl 1.0
"""

import argparse

from infalign import BestOfN, TiltedPolicy, frontier, optimal_transform, plan, win_rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4, help="candidates per answer")
    parser.add_argument("--kl", type=float, default=1.0, help="KL from the reference, nats")
    arguments = parser.parse_args()
    procedure, kl = BestOfN(arguments.n), arguments.kl

    print(f"Win rates at KL {kl:g}, both sides decoded alike (1/2: no change)\n")
    print(f"{'transform':10} {'beta':>8} {'one answer':>11} {procedure.name:>12} {'of limit':>9}")
    for row in plan(procedure, kl):
        print(
            f"{row.transform:10} {row.beta:8.4f} {row.standard_win_rate:11.3f} "
            f"{row.decoded_win_rate:12.3f} {row.fraction_of_limit:9.1%}"
        )

    print(
        f"\nTrained for {procedure.name}, but decoded by best-of-M: win rate, and the limit there"
    )
    best = optimal_transform(procedure, kl=kl)
    policy = TiltedPolicy(best, best.beta)
    for m in (1, 2, 4, 8, 16):
        limit = frontier(BestOfN(m), [kl])[0]
        print(f"  M = {m:2}  {win_rate(policy, BestOfN(m)):.3f}  {limit:.3f}")


if __name__ == "__main__":
    main()
