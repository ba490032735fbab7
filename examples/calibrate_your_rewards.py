"""Your own rewards, as an array: calibrate, transform, and see what alignment could win.

No model is loaded. `rewards` would come from your reward model: K responses of the reference
policy to each of P prompts.

    python examples/calibrate_your_rewards.py
"""

import numpy as np

from infalign import BestOfN, EmpiricalCalibration, optimal_transform, transform_from_name
from infalign.evaluation import estimate, ideal_table, win_rate_samples

PROMPTS, K, KL = 40, 128, 0.5


def main() -> None:
    rng = np.random.default_rng(0)
    # A scale and an offset of its own for each prompt: what reward models do.
    scale, offset = rng.lognormal(sigma=0.8, size=(PROMPTS, 1)), rng.normal(size=(PROMPTS, 1))
    rewards = offset + scale * rng.normal(size=(PROMPTS, K))
    ids = tuple(f"prompt {i}" for i in range(PROMPTS))

    calibration = EmpiricalCalibration(ids, rewards)
    quantiles = calibration.leave_one_out()
    print(f"rewards:   spread from prompt to prompt {np.ptp(rewards.std(1)):.2f}")
    print(f"quantiles: spread from prompt to prompt {np.ptp(quantiles.std(1)):.2f}")

    procedure = BestOfN(4)
    transform = optimal_transform(procedure, kl=KL)
    new = offset + scale * rng.normal(loc=1.0, size=(PROMPTS, 16))  # rewards of new responses
    below, ties = calibration.ranks(ids, new)
    training_rewards = transform.posterior_mean(below, ties, calibration.k)
    print(f"train on these, with KL coefficient {transform.beta:.4f}: {training_rewards.shape}")

    print(f"\nExact tilt of the stored rollouts at KL {KL}, nothing trained: win rate ± s.e.")
    transforms = [transform_from_name("identity"), transform]
    for row in ideal_table(rewards, transforms, [BestOfN(1), procedure], KL, rng=rng):
        print(f"  {row.name:9} {row.procedure:10} {row.win_rate.value:.3f} ± {row.win_rate.se:.3f}")

    fresh = offset + scale * rng.normal(size=(PROMPTS, 32))  # never those that calibrated
    measured = estimate(win_rate_samples(new, fresh, procedure))
    print(f"\n{procedure.name}, new responses against the reference: {measured.value:.3f} ", end="")
    print(f"(95 % interval {measured.low:.3f} to {measured.high:.3f}, clustered by prompt)")


if __name__ == "__main__":
    main()
