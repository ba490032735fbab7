"""On a tabular policy every solver arrives at the tilted policy, and wrong ones do not."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from infalign.quantile.calibration import EmpiricalCalibration
from infalign.quantile.procedures import BestOfN
from infalign.quantile.tilting import tilt_atoms
from infalign.quantile.transforms import Exponential
from infalign.training import (
    CalibratedReward,
    Descent,
    EnumeratedReward,
    Exact,
    Fit,
    Online,
    Problem,
    Regression,
    TrainingReward,
    online,
)

sys.path.insert(0, str(Path(__file__).parent))
from tables import distance, law, lines, rollouts_of, table

torch.set_num_threads(1)
P, C, K = 4, 8, 32
STEPS = Descent(steps=400, learning_rate=0.05)


class Lookup:
    """A reward that knows the table's responses."""

    name = "lookup"

    def __init__(self, table):
        self.table = table

    def __call__(self, prompts, responses):
        return np.array(
            [
                [self.table[int(prompt[1:]), int(text[1:])] for text in texts]
                for prompt, texts in zip(prompts, responses, strict=True)
            ]
        )


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    return np.array([np.bincount(rng.integers(C, size=K - C), minlength=C) + 1 for _ in range(P)])


@pytest.fixture(scope="module")
def masses(counts):
    return counts / K


@pytest.fixture
def enumerated(masses):
    """Exactly calibrated: what exact and online training see."""
    rewards = np.random.default_rng(1).normal(size=(P, C)).round(1)
    responses = [[f"y{c}" for c in range(C)]] * P
    ids = [line.id for line in lines(P)]
    reward = EnumeratedReward.of_transform(ids, responses, masses, rewards, Exponential(5.0))
    return Problem(lines(P), reward, reward.beta_for_kl(0.5, ids), procedure=BestOfN(4))


@pytest.fixture
def stored(counts):
    """Rollouts exactly proportional to the reference: what offline training sees."""
    scores = Lookup(np.random.default_rng(1).normal(size=(P, C)).round(1))
    rollouts = rollouts_of(counts)
    texts = [[response.text for response in row] for row in rollouts]
    ids = tuple(line.id for line in lines(P))
    rewards = scores([line.text for line in lines(P)], texts)
    calibrated = CalibratedReward(scores, EmpiricalCalibration(ids, rewards), Exponential(5.0))
    return Problem(lines(P), calibrated, calibrated.beta_for_kl(0.5, ids), rollouts)


def target_of(problem, masses):
    """The tilted policy over the C responses."""
    if problem.rollouts is None:
        return tilt_atoms(masses, problem.rewards.training_rewards, problem.beta)
    _, per_rollout = problem.rewards.atoms(problem.ids)
    columns = np.array([[int(r.text[1:]) for r in row] for row in problem.rollouts])
    training_rewards = np.zeros(masses.shape)
    np.put_along_axis(training_rewards, columns, per_rollout, 1)
    return tilt_atoms(masses, training_rewards, problem.beta)


def miss(solver, problem, masses, seed=2):
    """Total variation between what the solver reaches and the tilted policy."""
    policy = table(masses)
    solver.train(policy, problem, rng=np.random.default_rng(seed))
    return distance(law(policy), target_of(problem, masses))


@pytest.mark.parametrize(
    "solver",
    [Exact(STEPS), Online(dataclasses.replace(STEPS, steps=1500), k=8)],
    ids=["exact", "online"],
)
def test_solver_reaches_the_tilted_policy(solver, enumerated, masses):
    assert distance(masses, target_of(enumerated, masses)) > 0.2  # far away at the start
    assert miss(solver, enumerated, masses) < 1e-3


@pytest.mark.parametrize(
    "solver",
    [Fit(STEPS), Fit(STEPS, loss="contrast"), Regression(STEPS)],
    ids=["likelihood", "contrast", "regression"],
)
def test_offline_solver_reaches_the_tilted_policy(solver, stored, masses):
    assert miss(solver, stored, masses) < 1e-3


def test_minibatches_of_prompts_and_small_passes_reach_it_too(enumerated, masses):
    descent = Descent(steps=800, learning_rate=0.05, prompts_per_step=3)
    assert miss(Exact(descent, prompts_per_pass=2), enumerated, masses) < 1e-3


def test_passes_change_memory_not_the_gradient(enumerated, masses):
    laws = []
    for size in (1, 3, 64):
        policy = table(masses)
        solver = Online(Descent(steps=5, learning_rate=0.05), prompts_per_pass=size)
        solver.train(policy, enumerated, rng=np.random.default_rng(3))
        laws.append(law(policy))
    np.testing.assert_allclose(laws[0], laws[2], atol=1e-12)
    np.testing.assert_allclose(laws[1], laws[2], atol=1e-12)


def test_rollouts_drawn_by_weight_are_unbiased_but_noisy(stored, masses):
    """With k of K rollouts a step the fit hovers around the tilt: noise ∝ √rate."""
    assert miss(Fit(Descent(steps=1500, learning_rate=0.003), k=8), stored, masses) < 0.05


class _GroupNormalised(TrainingReward):
    """Negative control: training rewards divided by the standard deviation of their group."""

    def __init__(self, right):
        self.right = right

    def score(self, *given):
        scored = self.right.score(*given)
        phi = scored.training_rewards
        spread = phi.std(axis=1, keepdims=True) + 1e-6
        return dataclasses.replace(scored, training_rewards=(phi - phi.mean(1)[:, None]) / spread)

    def atoms(self, prompt_ids):
        return self.right.atoms(prompt_ids)


def test_dividing_the_reward_by_its_group_deviation_lands_elsewhere(enumerated, masses):
    policy = table(masses)
    wrong = dataclasses.replace(enumerated, rewards=_GroupNormalised(enumerated.rewards))
    solver = Online(dataclasses.replace(STEPS, learning_rate=0.02), k=8)
    solver.train(policy, wrong, rng=np.random.default_rng(2))
    assert distance(law(policy), target_of(enumerated, masses)) > 0.1


def test_dividing_the_whole_value_by_its_group_deviation_never_settles(
    enumerated, masses, monkeypatch
):
    """The optimum stays where it is, but the noise no longer vanishes there."""
    reinforce = online._reinforce

    def normalised(value, log_prob):
        return reinforce(value / (value.std(axis=1, keepdims=True) + 1e-6), log_prob)

    monkeypatch.setattr(online, "_reinforce", normalised)
    solver = Online(dataclasses.replace(STEPS, steps=1500), k=8)
    assert miss(solver, enumerated, masses) > 5e-3


class _ShiftedPartition(TrainingReward):
    """Negative control: the right training rewards with a wrong log Z."""

    def __init__(self, right, shift):
        self.right, self.shift = right, shift

    def score(self, *given):
        return self.right.score(*given)

    def atoms(self, prompt_ids):
        return self.right.atoms(prompt_ids)

    def log_partition(self, beta, prompt_ids):
        return self.right.log_partition(beta, prompt_ids) + self.shift


def test_regression_with_a_wrong_log_partition_lands_elsewhere(stored, masses):
    wrong = dataclasses.replace(stored, rewards=_ShiftedPartition(stored.rewards, 0.3))
    assert miss(Regression(STEPS), wrong, masses) > 0.01


def test_rao_blackwell_is_exact_at_the_start_but_noisy_at_the_optimum(enumerated, masses):
    """The k1 gradient vanishes sample by sample at the tilt; the other does not."""

    def gradient_norm(policy, kl, seed):
        solver = Online(Descent(steps=1, learning_rate=1e-9), k=8, kl=kl)
        return solver.train(policy, enumerated, rng=np.random.default_rng(seed)).rows[0][
            "gradient_norm"
        ]

    there = table(masses)
    with torch.no_grad():
        there.logits.copy_(torch.log(torch.as_tensor(target_of(enumerated, masses))))
    assert gradient_norm(there, "k1", 4) < 1e-6
    assert gradient_norm(there, "rao_blackwell", 4) > 1e-2


@pytest.mark.parametrize("kl", ["k1", "rao_blackwell"])
def test_online_gradient_is_unbiased(enumerated, masses, kl):
    """Mean of 1500 gradients against the exact one, in standard errors. False alarm < 0.01:
    the largest of 32 |z| stays below 4."""
    policy = table(masses)
    with torch.no_grad():
        policy.logits += torch.as_tensor(np.random.default_rng(5).normal(size=(P, C)) * 0.3)

    def gradient(accumulate):
        policy.logits.grad = None
        accumulate()
        return policy.logits.grad.numpy().copy()

    scored = enumerated.rewards.score(
        enumerated.ids, enumerated.texts, policy.responses(enumerated.texts)
    )
    exact = gradient(lambda: Exact()._accumulate(policy, enumerated, scored, masses))
    rng, solver = np.random.default_rng(6), Online(k=4, kl=kl)
    draws = np.array(
        [gradient(lambda: solver._accumulate(policy, enumerated, rng)) for _ in range(1500)]
    )
    z = (draws.mean(0) - exact) / (draws.std(0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 4


def test_exact_log_rows_are_exact(enumerated, masses):
    result = Exact(STEPS).train(table(masses), enumerated, rng=np.random.default_rng(7))
    first, last = result.rows[0], result.rows[-1]
    assert first["kl"] == pytest.approx(0, abs=1e-12)
    assert first["win_rate"] == pytest.approx(0.5)
    assert first["quantile"] == pytest.approx(0.5)
    assert last["kl"] == pytest.approx(0.5, abs=1e-3)
    assert last["gap"] == pytest.approx(0, abs=1e-6)


def test_online_log_estimates_what_exact_knows(enumerated, masses):
    """One step of 4000 samples against the exact row. False alarm 1e-3: 4 errors of the mean."""
    policy = table(masses)
    Exact(Descent(steps=8, learning_rate=0.05)).train(
        policy, enumerated, rng=np.random.default_rng(8)
    )
    rows = [
        solver.train(policy, enumerated, rng=np.random.default_rng(9)).rows[0]
        for solver in (
            Exact(Descent(steps=1, learning_rate=1e-9)),
            Online(Descent(steps=1, learning_rate=1e-9), k=4000),
        )
    ]
    for name in ("kl", "gap", "training_reward", "quantile"):
        assert rows[1][name] == pytest.approx(rows[0][name], abs=0.03)


def test_training_stops_at_the_target_kl_before_moving_past_it(enumerated, masses):
    descent = dataclasses.replace(STEPS, target_kl=0.2)
    policy = table(masses)
    result = Exact(descent).train(policy, enumerated, rng=np.random.default_rng(10))
    assert result.stopped == "target_kl"
    assert result.rows[-2]["kl"] < 0.2 <= result.rows[-1]["kl"]
    kl = (law(policy) * np.log(law(policy) / masses)).sum(1).mean()
    assert kl == pytest.approx(result.rows[-1]["kl"])


@pytest.mark.parametrize("solver", [Fit, Regression])
def test_offline_solvers_stop_only_on_what_they_measure(solver, stored, masses):
    with pytest.raises(ValueError, match="never sees its KL"):
        solver(Descent(target_kl=0.2)).train(table(masses), stored, rng=np.random.default_rng(0))
    descent = dataclasses.replace(STEPS, target_kl=0.2, measure_every=5, measure_k=64)
    result = solver(descent).train(table(masses), stored, rng=np.random.default_rng(11))
    assert result.stopped == "target_kl"
    assert result.rows[-1]["step"] == result.steps < 100
    assert result.rows[-1]["kl"] >= 0.2


def test_settings_that_mean_nothing_are_refused(enumerated, stored, masses):
    with pytest.raises(ValueError, match="beta is 0"):
        dataclasses.replace(enumerated, beta=0.0)
    with pytest.raises(ValueError, match="at least 2 responses"):
        Online(k=1)
    with pytest.raises(ValueError, match="stored reference rollouts"):
        Fit().train(table(masses), enumerated, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="among all rollouts"):
        Fit(loss="contrast", k=4)
    frozen = table(masses)
    frozen.logits.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        Exact().train(frozen, enumerated, rng=np.random.default_rng(0))
    nan = float("nan")
    blind = [[dataclasses.replace(r, log_prob=nan) for r in row] for row in stored.rollouts]
    with pytest.raises(ValueError, match="rollout 0 of prompt 'id0'"):
        Regression().train(
            table(masses), dataclasses.replace(stored, rollouts=blind), rng=np.random.default_rng(0)
        )
