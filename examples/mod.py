"""Two rewards, one policy for each, and any weights between them at decoding time: no training.

One reward is in hundreds, the other between 0 and 1. Weights of policies aligned to them as they
are mean nothing; of policies aligned to their quantiles, what they say.

    python examples/mod.py
"""

import numpy as np

from infalign import EmpiricalCalibration
from infalign.decoding import combine_tables, mod
from infalign.policies import TabularLM

PROMPTS, K, BETA = tuple(f"question {i}" for i in range(6)), 512, 0.2
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    rng = np.random.default_rng(0)
    reference = TabularLM.random(PROMPTS, ("a", "b", "c"), 4, rng, spread=0.5)
    shape, rows = reference.masses.shape, np.arange(len(PROMPTS))[:, None]
    rewards = 300 * rng.normal(size=shape), rng.uniform(size=shape)  # of every response there is

    quantiles, drawn = [], reference.sample(PROMPTS, K, rng)
    columns = np.array([[reference.places[y.token_ids] for y in row] for row in drawn])
    for reward in rewards:
        calibration = EmpiricalCalibration(PROMPTS, reward[rows, columns])
        quantiles.append(calibration(PROMPTS, reward))

    def wins(masses: np.ndarray) -> list[float]:  # over the reference, by each reward, ties half
        better = [np.sign(reward[:, :, None] - reward[:, None, :]) / 2 + 0.5 for reward in rewards]
        law = reference.masses
        return [float(np.einsum("ps,pt,pst->p", masses, law, b).mean()) for b in better]

    print("win rate by the first and the second reward, each policy aligned to one of them")
    aligned = {
        "raw": [reference.tilt(reward, BETA) for reward in rewards],
        "calibrated": [reference.tilt(u, BETA) for u in quantiles],
    }
    for name, policies in aligned.items():
        print(f"\n{name:10}  weights      first  second")
        for second in WEIGHTS:
            first, other = wins(combine_tables(policies, (1 - second, second)).masses)
            print(f"            {1 - second:.2f}  {second:.2f}   {first:.3f}   {other:.3f}")

    both = mod(aligned["calibrated"], (0.5, 0.5), level="sequence", rows=10_000)
    found = both.sample(PROMPTS, 400, rng)
    masses = np.zeros(shape)
    for row, answers in zip(masses, found, strict=True):
        np.add.at(row, [reference.places[y.token_ids] for y in answers], 1 / len(answers))
    print("\ndrawn, not enumerated, at 0.50 0.50: {:.3f} {:.3f}".format(*wins(masses)))


if __name__ == "__main__":
    main()
