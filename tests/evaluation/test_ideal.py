"""The ideal table: what theory predicts, from samples of a known law."""

import numpy as np
import pytest

from infalign.evaluation import ideal_table
from infalign.quantile import procedures
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Identity, Log
from infalign.quantile.win_rate import win_rate

TRANSFORMS = [Identity(), Log(), Exponential(10.0)]
PROCEDURES = [procedures.Identity(), procedures.BestOfN(4), procedures.WorstOfN(4)]


def table_of(rewards, kl=0.5, **options):
    rows = ideal_table(rewards, TRANSFORMS, PROCEDURES, kl, rng=np.random.default_rng(0), **options)
    return {(row.name, row.procedure): row for row in rows}


@pytest.fixture(scope="module")
def uniform():
    """Uniform rewards, prompts of very different scale: 200 prompts × 160 rollouts."""
    rng = np.random.default_rng(1)
    scale = np.exp(0.7 * rng.normal(size=(200, 1)))
    return scale * rng.random((200, 160))


@pytest.mark.parametrize("kl", [0.25, 1.0])
def test_calibrated_transforms_win_what_theory_predicts(uniform, kl):
    """Tolerance 0.006: the bias the jackknife leaves at 80 atoms, plus three standard errors."""
    table = table_of(uniform, kl, splits=2)
    for transform in TRANSFORMS:
        policy = TiltedPolicy(transform, beta_for_kl(transform, kl))
        for procedure in PROCEDURES:
            measured = table[transform.name, procedure.name].win_rate.value
            assert measured == pytest.approx(win_rate(policy, procedure), abs=6e-3)


def test_without_the_jackknife_few_atoms_bias_it_low(uniform):
    """Negative control for the correction."""
    transform, procedure = Exponential(10.0), procedures.BestOfN(4)
    truth = win_rate(TiltedPolicy(transform, beta_for_kl(transform, 0.5)), procedure)
    plain = table_of(uniform, groups=0, splits=1)[transform.name, procedure.name]
    assert truth - plain.win_rate.value > 0.015


def test_raw_reward_of_one_scale_is_the_identity_transform():
    """Uniform rewards of equal scale *are* quantiles."""
    rewards = np.random.default_rng(2).random((300, 96))
    table = table_of(rewards, splits=2)
    for procedure in PROCEDURES:
        calibrated = table["identity", procedure.name]
        assert calibrated.gain is not None
        assert abs(calibrated.gain.value) < 4 * calibrated.gain.se + 5e-3


def test_no_sample_judges_itself():
    """Cross-fitting: rewards that are pure noise under the judge win exactly half, on average."""
    rng = np.random.default_rng(3)
    rewards, judged = rng.normal(size=(2, 400, 32))
    for row in table_of(rewards, judged=judged, splits=1).values():
        assert abs(row.win_rate.value - 0.5) < 4 * row.win_rate.se


def test_judging_by_the_reward_itself_is_the_default(uniform):
    own, judged = (table_of(uniform[:20], splits=1, **o) for o in ({}, {"judged": uniform[:20]}))
    for key, row in own.items():
        np.testing.assert_allclose(row.per_prompt, judged[key].per_prompt)


def test_increasing_warps_of_the_reward_change_only_raw(uniform):
    plain, warped = (table_of(r, splits=1) for r in (uniform[:50], np.exp(3 * uniform[:50])))
    for (name, procedure), row in plain.items():
        same = np.allclose(row.per_prompt, warped[name, procedure].per_prompt)
        assert same == (name != "raw")


def test_ties_everywhere_are_survived():
    rewards = np.random.default_rng(4).integers(3, size=(30, 32)).astype(float)
    for row in table_of(rewards, kl=0.2).values():
        assert np.isfinite(row.per_prompt).all()


def test_too_few_rollouts_are_refused():
    with pytest.raises(ValueError, match="rollouts per prompt"):
        table_of(np.random.default_rng(5).random((5, 8)))
