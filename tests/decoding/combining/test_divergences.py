"""What the optimum for a weighted reward is, against root finding that knows the rewards."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from weighted_optima import (
    DIVERGENCES,
    GENERATORS,
    SLOPES,
    members_of,
    optimum,
    reference_of,
    total_variation,
)

from infalign.decoding.combining import (
    Alpha,
    combine_tables,
    divergence_of,
    mod,
)
from infalign.policies import TabularLM

WEIGHTS = (0.3, 0.7)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_combined_policy_is_the_optimum_for_the_weighted_reward(divergence):
    """MO-1: 121 sequences, bar 1e-10; observed ≤ 9e-15."""
    reference = reference_of()
    rewards, policies = members_of(reference, divergence)
    combined = combine_tables(policies, WEIGHTS, reference=reference, divergence=divergence)
    want = optimum(reference.masses, np.tensordot(WEIGHTS, rewards, 1), 1.0, divergence)
    assert np.abs(combined.masses - want).max() <= 1e-10
    # Nothing near it is better: masses moved by a little between random pairs of sequences.
    rng = np.random.default_rng(5)

    def objective(masses):
        cost = reference.masses @ GENERATORS[divergence](masses / reference.masses).T
        return float((masses * np.tensordot(WEIGHTS, rewards, 1)).sum() - cost[0, 0])

    best = objective(combined.masses)
    for _ in range(200):
        noise = rng.standard_normal(combined.masses.shape)
        moved = combined.masses * np.exp(0.01 * noise)
        assert objective(moved / moved.sum()) < best


@pytest.mark.parametrize("divergence", ["forward_kl", "jsd", 0.5])
def test_dropping_the_constant_is_another_policy(divergence):
    """Negative control: renormalising without Z is right for the reverse KL only.

    Observed total variation 0.58, 0.79 and 0.36.
    """
    reference = reference_of()
    _, policies = members_of(reference, divergence, scale=2.0)
    exact = combine_tables(policies, WEIGHTS, reference=reference, divergence=divergence)
    score = divergence_of(divergence).score(
        np.log([policy.masses for policy in policies]),
        np.log(reference.masses),
        np.array(WEIGHTS),
    )
    dropped = np.exp(score) / np.exp(score).sum()
    assert total_variation(dropped, exact.masses) >= 0.05
    other = divergence_of("reverse_kl")
    score = other.score(
        np.log([policy.masses for policy in members_of(reference)[1]]),
        np.log(reference.masses),
        np.array(WEIGHTS),
    )
    kept = combine_tables(members_of(reference)[1], WEIGHTS).masses
    assert total_variation(np.exp(score) / np.exp(score).sum(), kept) <= 1e-12


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_every_policy_may_have_a_beta_of_its_own(divergence):
    """MO-2: bar 1e-12 for the reverse KL, whose exponents are w·β_i/β; observed 5e-17.

    1e-9 where Z is a root; observed ≤ 7e-14.
    """
    reference, betas, beta = reference_of(), (0.5, 2.0), 0.8
    rewards, policies = members_of(reference, divergence, betas=betas)
    combined = combine_tables(
        policies, WEIGHTS, reference=reference, betas=betas, beta=beta, divergence=divergence
    )
    want = optimum(reference.masses, np.tensordot(WEIGHTS, rewards, 1), beta, divergence)
    assert np.abs(combined.masses - want).max() <= (1e-12 if divergence == "reverse_kl" else 1e-9)
    exponents = [w * own / beta for w, own in zip(WEIGHTS, betas, strict=True)]
    logs = [e * np.log(p.masses) for e, p in zip(exponents, policies, strict=True)]
    product = np.exp(sum(logs) + (1 - sum(exponents)) * np.log(reference.masses))
    if divergence == "reverse_kl":
        assert np.abs(combined.masses - product / product.sum()).max() <= 1e-12
    # Negative control: as if all had been trained at one β.
    ignored = combine_tables(policies, WEIGHTS, reference=reference, divergence=divergence)
    assert total_variation(ignored.masses, want) >= 0.02


def test_one_policy_is_realigned_to_another_beta():
    reference = reference_of()
    rewards, (policy,) = members_of(reference, betas=(1.0,))
    for beta in (0.25, 1.0, 4.0):
        again = combine_tables([policy], [1.0], reference=reference, betas=[1.0], beta=beta)
        assert np.abs(again.masses - reference.tilt(rewards[0], beta).masses).max() <= 1e-12


def test_alpha_goes_from_the_reverse_to_the_forward_kl():
    reference = reference_of()
    _, policies = members_of(reference)
    logs, base = np.log([p.masses for p in policies]), np.log(reference.masses)
    weights = np.array(WEIGHTS)
    near = Alpha(1e-6).law(logs, base, weights)
    assert np.abs(near - divergence_of("reverse_kl").law(logs, base, weights)).max() <= 1e-4
    assert Alpha(1.0) == divergence_of("forward_kl")
    assert Alpha(1.0).name == "forward KL"
    assert Alpha(0.5).name == "alpha-divergence 0.5"


def test_ratios_no_float_holds_are_no_trouble():
    """Log-laws of long responses: differences of thousands of nats."""
    logs = np.array([[[-3000.0, -3001.0, -9000.0]], [[-3001.0, -3000.0, -9000.0]]])
    base = np.array([[-3000.5, -3000.5, np.log1p(-1e-12)]])
    for wanted in DIVERGENCES:
        divergence = divergence_of(wanted)
        assert np.isfinite(divergence.score(logs, base, np.array([0.5, 0.5]))[0, :2]).all()
        law = divergence.law(
            np.array([[[0.0, -600.0]], [[-600.0, 0.0]]]), np.log([[0.5, 0.5]]), np.array([0.5, 0.5])
        )
        assert np.abs(np.exp(law) - 0.5).max() <= 1e-12


@pytest.mark.parametrize("divergence", [*DIVERGENCES, 0.99])
@pytest.mark.parametrize("nats", [800.0, 5000.0])
def test_policies_that_are_sure_of_different_tokens_still_share_something(divergence, nats):
    """exp(800) is no float: the law is even all the same, and shifted where the weights are."""
    laws, even = np.array([[[0.0, -nats]], [[-nats, 0.0]]]), np.log([[0.5, 0.5]])
    wanted = divergence_of(divergence)
    assert np.abs(np.exp(wanted.law(laws, even, np.array([0.5, 0.5]))) - 0.5).max() <= 1e-12
    law = np.exp(wanted.law(laws, even, np.array([0.4, 0.6])))
    assert law[0, 1] > 0.5
    assert abs(law.sum() - 1) <= 1e-12
    # A token that all are sure of, a reference that hardly is: ratios of exp(+800).
    sure = wanted.law(laws[:1].repeat(2, 0), laws[1], np.array([0.5, 0.5]))
    assert np.abs(np.exp(sure) - [[1.0, 0.0]]).max() <= 1e-12


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("weights", [(0.1, 0.3), (0.3, 0.7), (1e-9, 1e-9)])
def test_the_formula_without_its_constant_is_that_of_the_slopes(divergence, weights):
    """(f′)⁻¹(Σ w f′(x)) by the definitions, whatever the weights sum to; observed ≤ 1e-13.

    With hardly any weight it is the reference: the policies are not asked any more.
    """
    reference = reference_of()
    _, policies = members_of(reference, divergence)
    ratios = [policy.masses / reference.masses for policy in policies]
    slope, inverse = SLOPES[divergence]
    at_one = slope(1.0)
    summed = sum(w * (slope(x) - at_one) for w, x in zip(weights, ratios, strict=True))
    want = reference.masses * inverse(summed + at_one)
    logs = np.log([policy.masses for policy in policies])
    score = divergence_of(divergence).score(logs, np.log(reference.masses), np.array(weights))
    assert np.abs(np.exp(score) / want - 1).max() <= 1e-12
    if sum(weights) < 1e-6:
        assert np.abs(np.exp(score) - reference.masses).max() <= 1e-6


def test_what_the_reference_cannot_say_the_combined_policy_cannot():
    laws = np.log([[[0.5, 0.5, 1e-300]], [[0.2, 0.8, 1e-300]]])
    laws[:, :, 2] = -np.inf
    base = np.array([[np.log(0.5), np.log(0.5), -np.inf]])
    for wanted in DIVERGENCES:
        law = divergence_of(wanted).law(laws, base, np.array([0.5, 0.5]))
        assert law[0, 2] == -np.inf
        assert abs(np.exp(law).sum() - 1) <= 1e-12
    apart = np.log(
        np.array([[[1.0, 0.0]], [[0.0, 1.0]]]) + 0.0,
        where=np.eye(2)[:, None] > 0,
        out=np.full((2, 1, 2), -np.inf),
    )
    with pytest.raises(ValueError, match="share nothing"):
        divergence_of("jsd").law(apart, np.log([[0.5, 0.5]]), np.array([0.5, 0.5]))


@pytest.mark.parametrize(
    "name",
    [
        *("tv", "TV", "TVD", "total_variation", "total-variation", "Total Variation distance"),
        *("chi2", "chi_squared", "χ²", "χ2", "chi^2", "chi-square", "chi square", "chisq"),
        *("Pearson", "Pearson χ²", "X^2"),
    ],
)
def test_divergences_without_a_barrier_are_refused_with_the_reason(name):
    """MO-7."""
    policies = members_of(reference_of())[1]
    with pytest.raises(ValueError, match=r"no barrier.*drop responses"):
        mod(policies, WEIGHTS, divergence=name)


@pytest.mark.parametrize(
    ("divergence", "said"),
    [("kl", "'reverse_kl', 'forward_kl', 'jsd'"), (0.0, "alpha is 0"), (1.5, "alpha is 1.5"),
     (float("nan"), "alpha is nan"), (True, "alpha is True"), (None, "alpha is None")],
)  # fmt: skip
def test_unknown_divergences_are_refused(divergence, said):
    with pytest.raises(ValueError, match=said):
        divergence_of(divergence)


def test_averaged_parameters_are_the_combined_policy_where_log_laws_are_linear_in_them():
    """Policies ∝ exp(features·θ) on whole responses: the souped parameters give the same law.

    Negative control: the average of next-token logits is another policy.
    """
    reference = reference_of()
    rng = np.random.default_rng(2)
    features, thetas = rng.standard_normal((121, 5)), rng.standard_normal((2, 5))

    def policy_of(theta):
        return reference.tilt((features @ theta)[None], 1.0)

    combined = combine_tables([policy_of(theta) for theta in thetas], WEIGHTS)
    soup = policy_of(np.tensordot(WEIGHTS, thetas, 1))
    assert np.abs(combined.masses - soup.masses).max() <= 1e-12
    logs = np.tensordot(WEIGHTS, [np.log(policy_of(t).laws) for t in thetas], 1)
    laws = np.exp(logs) / np.exp(logs).sum(-1, keepdims=True)
    averaged = TabularLM(reference.prompts, reference.tokens, laws)
    assert total_variation(averaged.masses, combined.masses) >= 0.02
