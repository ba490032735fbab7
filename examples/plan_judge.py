"""The reward that selects is not the one that judges: estimate how well they agree, then plan.

`proxy` and `gold` would be two scores of the same responses: K to each of P prompts.

    python examples/plan_judge.py --n 4 --kl 1.0
"""

import argparse

import numpy as np

from infalign import BestOfN, TiltedPolicy, optimal_transform, plan, win_rate
from infalign.quantile.agreement import estimate_agreement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4, help="candidates per answer")
    parser.add_argument("--kl", type=float, default=1.0, help="KL from the reference, nats")
    arguments = parser.parse_args()
    procedure, kl = BestOfN(arguments.n), arguments.kl

    rng = np.random.default_rng(0)
    easy, proxy = rng.normal(size=(200, 1)), rng.normal(size=(200, 32))
    gold = 0.6 * proxy + 0.8 * rng.normal(size=(200, 32))
    agreement = estimate_agreement(3 * easy + proxy, 3 * easy + gold)  # easy prompts do not count
    print(
        f"agreement ρ = {agreement.value:.3f} ± {agreement.se:.3f} "
        f"({agreement.low:.3f} to {agreement.high:.3f}), {agreement.prompts} prompts\n"
    )

    print(f"{'transform':18} {procedure.name + ' by proxy':>20} {'by gold':>9}")
    for row in plan(procedure, kl, agreement=agreement.value):
        print(f"{row.transform:18} {row.decoded_win_rate:20.3f} {row.gold_win_rate:9.3f}")

    print("\nBy gold, of the policy that is optimal for the proxy at more N or more KL:")
    for n in (arguments.n, 4 * arguments.n):
        best = [optimal_transform(BestOfN(n), kl=factor * kl) for factor in (1, 2)]
        policies = [TiltedPolicy(b, b.beta) for b in best]
        rates = [win_rate(p, BestOfN(n), agreement=agreement.value) for p in policies]
        print(f"  N = {n:2}   KL {kl:g}: {rates[0]:.3f}   KL {2 * kl:g}: {rates[1]:.3f}")


if __name__ == "__main__":
    main()
