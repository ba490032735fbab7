"""How far to train, and how many answers to draw, to win so often against one answer now.

python examples/plan_target.py --win-rate 0.9 --kl-price 8
"""

import argparse

from infalign.planner.target import cheapest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--win-rate", type=float, default=0.9, help="wanted, after decoding")
    parser.add_argument("--kl-price", type=float, default=8.0, help="candidates one nat is worth")
    arguments = parser.parse_args()
    ways = cheapest(arguments.win_rate, [1, 2, 4, 8, 16], kl_price=arguments.kl_price)

    print(f"To win {arguments.win_rate:g} of the comparisons with one answer of the reference\n")
    print(f"{'decoded by':12} {'least KL':>9} {'beta':>8}")
    for way in ways:
        beta = f"{way.beta:8.4f}" if way.kl > 0 else f"{'-':>8}"
        note = "  worth having" if way.is_efficient else ""
        note += f", cheapest at {arguments.kl_price:g} per nat" if way.is_cheapest else ""
        print(f"{way.procedure:12} {way.kl:9.4f} {beta}{note}")


if __name__ == "__main__":
    main()
