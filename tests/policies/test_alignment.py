"""What a policy was aligned by, also when it was twice."""

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest

from infalign.policies import Alignment, TabularLM
from infalign.policies.alignment import alignment_of_product, warn_of_second_tilt
from infalign.quantile.transforms import Identity, Log

LM: Any = TabularLM.random(("x",), ("a", "b"), 3, np.random.default_rng(0))
BRIEF, KIND = np.random.default_rng(1).normal(size=(2, 1, len(LM.sequences)))


@pytest.mark.parametrize("make", [lambda: LM, LM.table], ids=["tokens", "responses"])
def test_a_second_tilt_by_the_same_reward_is_one_tilt(make):
    policy = make()
    twice = policy.tilt(BRIEF, 1.0, Alignment("brief", 1.0)).tilt(BRIEF, 2.0, Alignment("brief", 2))
    once = policy.tilt(BRIEF, twice.aligned.beta)
    assert np.allclose(twice.masses, once.masses, atol=1e-12)
    assert twice.aligned == Alignment("brief", 2 / 3)


def test_tilts_by_several_rewards_are_all_known_in_any_order():
    policy = LM.tilt(BRIEF, 1.0, Alignment("brief", 1.0)).tilt(KIND, 0.5, Alignment("kind", 0.5))
    policy = policy.tilt(BRIEF, 1.0, Alignment("brief", 1.0))
    assert [(a.reward, a.beta) for a in policy.aligned] == [("brief", 0.5), ("kind", 0.5)]
    both = LM.tilt(BRIEF / 0.5 + KIND / 0.5, 1.0)
    assert np.allclose(policy.masses, both.masses, atol=1e-12)
    for name in ("brief", "kind"):
        with pytest.warns(UserWarning, match=r"aligned by .* one tilt at β = 0\.25"):
            warn_of_second_tilt(policy, name, None, 0.5, "the chain")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_second_tilt(policy, "another", None, 0.5, "the chain")
        warn_of_second_tilt(LM, "brief", None, 0.5, "the chain")


def test_a_tilt_that_has_no_name_leaves_the_first_one_s():
    assert LM.tilt(KIND, 1.0).aligned is None
    assert LM.tilt(BRIEF, 1.0, Alignment("brief", 1.0)).tilt(KIND, 1.0).aligned is not None


def test_other_transforms_are_other_tilts():
    raw, log = Alignment("brief", 1.0), Alignment("brief", 1.0, Log())
    both = log.after(raw)
    assert list(both) == [dataclasses.replace(raw, also=log), log]
    with pytest.warns(UserWarning, match="under another transform") as seen:
        warn_of_second_tilt(LM.tilt(BRIEF, 1.0, raw), "brief", Identity(), 0.5, "the chain")
    assert len(seen) == 1


def test_a_product_of_policies_is_tilted_by_what_each_was():
    brief, kind = Alignment("brief", 0.5), Alignment("kind", 1.0)
    weights = (0.25, 0.75)
    product = alignment_of_product([brief, kind], weights)
    assert product is not None
    policies = [LM.tilt(BRIEF, 0.5), LM.tilt(KIND, 1.0)]
    masses = np.prod([p.masses**w for p, w in zip(policies, weights, strict=True)], axis=0)
    rewards = {"brief": BRIEF, "kind": KIND}
    tilted = LM.tilt(np.sum([rewards[a.reward] / a.beta for a in product], axis=0), 1.0)
    assert np.allclose(tilted.masses, masses / masses.sum(), atol=1e-12)
    # The reference's share: what it takes away is not there any more.
    assert alignment_of_product([brief, None], [2.0, -1.0]) == Alignment("brief", 0.25)
    assert alignment_of_product([brief, brief], [1.0, -1.0]) is None
