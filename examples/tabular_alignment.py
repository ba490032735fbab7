"""Ten answers to each prompt, all listed: a solver must land on the policy that theory names.

Needs torch: pip install 'infalign[lm]'

    python examples/tabular_alignment.py
"""

import numpy as np

from infalign import BestOfN, optimal_transform
from infalign.policies import SoftmaxTable, TabularPolicy
from infalign.prompts import Prompt
from infalign.training import Descent, EnumeratedReward, Exact, Problem

PROMPTS, ANSWERS, KL = 6, 10, 0.5


def main() -> None:
    rng = np.random.default_rng(0)
    prompts = [Prompt.from_text(f"question {i}") for i in range(PROMPTS)]
    answers = tuple(tuple(f"answer {c}" for c in range(ANSWERS)) for _ in prompts)
    masses = rng.dirichlet(np.ones(ANSWERS), size=PROMPTS)
    rewards = rng.normal(size=(PROMPTS, ANSWERS))
    reference = TabularPolicy(tuple(p.text for p in prompts), answers, masses)

    procedure = BestOfN(4)
    transform = optimal_transform(procedure, kl=KL)
    ids = [prompt.id for prompt in prompts]
    training = EnumeratedReward.of_transform(ids, answers, masses, rewards, transform)
    beta = training.beta_for_kl(KL, ids)
    ideal = reference.tilt(training.atoms(ids)[1], beta)

    policy = SoftmaxTable(reference)
    problem = Problem(prompts, training, beta, procedure=procedure)
    Exact(Descent(steps=300, learning_rate=0.1, schedule="cosine")).train(policy, problem, rng=rng)
    trained = policy.snapshot()

    distance = 0.5 * np.abs(trained.masses - ideal.masses).sum(1).max()
    print(f"largest total variation between trained and predicted: {distance:.1e}")
    for name, law in (("reference", reference), ("predicted", ideal), ("trained", trained)):
        win = law.win_rate(reference, rewards, procedure).mean()
        print(f"{name:10} KL {law.kl(reference).mean():.4f}  {procedure.name} win rate {win:.4f}")


if __name__ == "__main__":
    main()
