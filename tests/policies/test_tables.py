"""Exact tables and their trainable twin."""

import numpy as np
import pytest

from infalign.policies import TabularPolicy
from infalign.protocols import Policy, Response
from infalign.quantile.procedures import BestOfN

MASSES = np.array([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]])


def table(masses=MASSES, **fields):
    texts = (("no", "maybe", "yes"), ("a", "b", "b"))
    return TabularPolicy(
        **({"prompts": ("x", "z"), "candidates": texts, "masses": masses} | fields)
    )


def rng():
    return np.random.default_rng(0)


def test_it_is_a_policy():
    assert isinstance(table(), Policy)


def test_frequencies_follow_the_masses():
    """Each frequency within 5 standard errors: false-alarm rate below 1e-5."""
    (drawn,) = table().sample(["x"], 40_000, rng())
    frequency = np.bincount([r.token_ids[0] for r in drawn], minlength=3) / len(drawn)
    error = np.sqrt(MASSES[0] * (1 - MASSES[0]) / len(drawn))
    assert (np.abs(frequency - MASSES[0]) < 5 * error).all()
    assert {r.text for r in drawn} == {"no", "maybe", "yes"}


def test_log_prob_is_the_log_of_the_mass_by_column_or_by_text():
    policy = table()
    responses = [
        [Response("b", (1,)), Response("b", (2,))],
        [Response("yes"), Response("no", (0,))],
    ]
    scored = policy.log_prob(["z", "x"], responses)
    assert scored[0, 0] == -np.inf
    np.testing.assert_allclose(scored[[0, 1, 1], [1, 0, 1]], np.log([0.9, 0.2, 0.5]))


def test_kl_is_zero_to_itself_and_infinite_off_the_support():
    moved = table(np.array([[0.2, 0.3, 0.5], [0.1, 0.4, 0.5]]))
    assert table().kl(table()).tolist() == [0, 0]
    expected = 0.5 * np.log(0.5 / 0.2) + 0.3 * np.log(1) + 0.2 * np.log(0.2 / 0.5)
    assert table().kl(moved)[0] == pytest.approx(expected)
    assert moved.kl(table())[1] == np.inf


def test_the_tilt_maximises_reward_minus_kl():
    """No law drawn at random does better on the objective than the tilt."""
    rewards, beta = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5]]), 0.7
    reference = table(np.array([[0.5, 0.3, 0.2], [0.1, 0.4, 0.5]]))
    tilted = reference.tilt(rewards, beta)

    def objective(policy):
        return (policy.masses * rewards).sum(1) - beta * policy.kl(reference)

    best = objective(tilted)
    for masses in rng().dirichlet(np.ones(3), (200, 2)):
        assert (objective(table(masses)) <= best + 1e-12).all()
    np.testing.assert_allclose(objective(reference.tilt(rewards, 1e9)), objective(reference))


def test_win_rate_against_itself_is_a_half_and_grows_with_the_tilt():
    rewards = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5]])
    policy = table()
    np.testing.assert_allclose(policy.win_rate(policy, rewards, BestOfN(4)), 0.5)
    assert (policy.tilt(rewards, 0.5).win_rate(policy, rewards, BestOfN(4)) > 0.6).all()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"masses": MASSES[:, :2]}, "as many responses"),
        ({"masses": MASSES * 2}, "prompt 0 are not probabilities"),
        ({"masses": np.array([[0.5, 0.5, 0.0], [2.0, -1.0, 0.0]])}, "prompt 1 are not"),
        ({"masses": np.full((2, 3), np.nan)}, "not probabilities"),
        ({"prompts": ("x", "x")}, "occurs twice"),
    ],
)
def test_what_is_no_law_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        table(**fields)


def test_unknown_prompts_responses_and_tables_are_refused():
    policy = table()
    with pytest.raises(ValueError, match="prompt 'q' is not in this table"):
        policy.sample(["x", "q"], 1, rng())
    with pytest.raises(ValueError, match="none of the 3 responses"):
        policy.log_prob(["x"], [[Response("never")]])
    with pytest.raises(ValueError, match="same responses"):
        policy.kl(TabularPolicy(("x",), (("no", "maybe", "yes"),), MASSES[:1]))


def test_fingerprint_follows_the_law():
    assert table().fingerprint == table().fingerprint
    assert table().fingerprint != table(MASSES[::-1]).fingerprint


class TestSoftmaxTable:
    @pytest.fixture
    def trainable(self):
        torch = pytest.importorskip("torch")
        from infalign.policies import SoftmaxTable

        reference = table(np.array([[0.5, 0.3, 0.2], [0.1, 0.4, 0.5]]))
        trainable = SoftmaxTable(reference)
        moved = torch.tensor([[0.3, -0.2, 0.1], [0.0, 1.0, -1.0]])
        with torch.no_grad():
            trainable.logits += moved
        return trainable

    def test_it_starts_at_its_reference(self, trainable):
        from infalign.policies import SoftmaxTable

        fresh = SoftmaxTable(trainable.table)
        np.testing.assert_allclose(fresh.snapshot().masses, trainable.table.masses)

    def test_scores_agree_with_the_exact_table(self, trainable):
        policy, prompts = trainable.snapshot(), ["z", "x"]
        responses = trainable.sample(prompts, 5, rng())
        scores = trainable.differentiable_scores(prompts, responses)
        np.testing.assert_allclose(scores.log_prob.detach(), policy.log_prob(prompts, responses))
        expected = trainable.table.log_prob(prompts, responses)
        np.testing.assert_allclose(scores.reference_log_prob, expected)
        kl = policy.kl(trainable.table)[::-1]
        np.testing.assert_allclose(scores.kl[:, 0].detach(), kl)
        law = trainable.log_law(prompts).exp().detach()
        np.testing.assert_allclose(law, policy.law(prompts))

    def test_a_reference_with_mass_zero_is_refused(self):
        pytest.importorskip("torch")
        from infalign.policies import SoftmaxTable

        with pytest.raises(ValueError, match="prompt 1 has mass 0"):
            SoftmaxTable(table())
