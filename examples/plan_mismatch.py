"""Trained for one N, decoded with another: what that costs, and the policy that is safe for both.

python examples/plan_mismatch.py --ns 1 4 --kl 1.0
"""

import argparse

from infalign import BestOfN, TiltedPolicy, win_rate
from infalign.planner.mismatch import mismatch
from infalign.planner.robust import robust


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ns", type=int, nargs="+", default=[1, 4], help="candidates per answer")
    parser.add_argument("--kl", type=float, default=1.0, help="KL from the reference, nats")
    arguments = parser.parse_args()
    procedures = [BestOfN(n) for n in arguments.ns]

    found = mismatch(procedures, arguments.kl)
    print(f"{'trained for':12}" + "".join(f"{name:>12}" for name in found.columns) + "  most lost")
    for name, rates, loss in zip(found.rows, found.win_rates, found.worst_losses, strict=True):
        print(f"{name:12}" + "".join(f"{rate:12.3f}" for rate in rates) + f"{loss:11.3f}")

    safe = robust(procedures, arguments.kl)
    print(f"{'robust':12}" + "".join(f"{rate:12.3f}" for rate in safe.win_rates), end="")
    print(f"{safe.worst:11.3f}")
    print(f"\nTrain on the robust transform with beta = {safe.transform.beta:.4f}.")
    print(f"No policy at this KL has a worst loss smaller by more than {safe.gap:.0e}.")

    policy = TiltedPolicy(safe.transform, safe.transform.beta)  # a transform like any other
    again = [win_rate(policy, procedure) for procedure in procedures]
    print(f"Integrated anew: {', '.join(f'{rate:.3f}' for rate in again)}")


if __name__ == "__main__":
    main()
