"""How many prompts, and samples of each, to see a difference of win rates; checked by simulation.

python examples/plan_power.py --n 4 --difference 0.05
"""

import argparse

import numpy as np

from infalign import BestOfN, TiltedPolicy, optimal_transform
from infalign.evaluation import win_rate_samples
from infalign.planner.power import power


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4, help="candidates per answer")
    parser.add_argument("--difference", type=float, default=0.05, help="to be seen; 0.05: 5 points")
    parser.add_argument("--kl", type=float, default=1.0, help="KL of the policy, nats")
    arguments = parser.parse_args()
    procedure, samples = BestOfN(arguments.n), [arguments.n, 4 * arguments.n, 16 * arguments.n]

    print("Prompts for 95 % confidence and 80 % power, by samples per prompt and side\n")
    print(f"{'samples':>7} {'against the reference':>22} {'two policies':>13}")
    rows = power(procedure, arguments.difference, samples, kl=arguments.kl)
    for row in rows:
        print(f"{row.samples:7} {row.prompts_against_reference:22} {row.prompts_paired:13}")

    m, prompts, rng = rows[1].samples, 4000, np.random.default_rng(0)
    best = optimal_transform(procedure, kl=arguments.kl)
    grid = np.append(np.linspace(0, 0.99, 4000), 1 - np.geomspace(0.01, 1e-12, 4000))
    quantile = np.interp(rng.random((prompts, m)), TiltedPolicy(best, best.beta).cdf(grid), grid)
    seen = win_rate_samples(quantile, rng.random((prompts, m)), procedure)
    print(
        f"\nOne prompt's standard error with {m} samples: {rows[1].standard_error:.4f} predicted,"
    )
    print(f"{np.std(seen):.4f} over {prompts} simulated prompts.")


if __name__ == "__main__":
    main()
