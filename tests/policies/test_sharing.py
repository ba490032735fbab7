"""Responses scored on one reading of their prompt: the values and gradients of separate rows."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from infalign.policies import token_tree  # noqa: E402
from infalign.policies.scoring import masks_work  # noqa: E402
from infalign.protocols import Sampling  # noqa: E402

PROMPTS = ["the film is", "a lazy film, contrived and cliche. it is a lazy excuse", "a"]
SAMPLING = Sampling(temperature=0.8, max_new_tokens=8, stop=('"',))


def differences(lm, responses):
    """Of log-probabilities and of the gradient, shared against separate, by norm."""
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(len(PROMPTS), 6)))
    found = []
    for packs in (True, False):
        lm._packs = packs
        lm.module.zero_grad()
        log_prob = lm.differentiable_log_prob(PROMPTS, responses)
        (weights * log_prob).sum().backward()
        trained = [p.grad.flatten() for p in lm.module.parameters() if p.requires_grad]
        found.append((log_prob.detach(), torch.cat(trained)))
    return [float((a - b).norm() / b.norm()) for a, b in zip(*found, strict=True)]


# bfloat16 has 8 bits: 2⁻⁸ = 4e-3 a rounding, and there are dozens on the way.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 5e-2)])
def test_log_probabilities_and_gradients_are_those_of_separate_rows(trained_lm, dtype, tolerance):
    lm = trained_lm(SAMPLING, row_tokens=30, dtype=dtype)
    responses = lm.sample(PROMPTS, 6, np.random.default_rng(0))
    assert max(differences(lm, responses)) < tolerance


def test_a_mask_that_leaks_between_siblings_is_rejected(trained_lm, monkeypatch):
    """The negative control: by the comparison above, and by the probe when a model is loaded."""
    lm = trained_lm(SAMPLING)
    responses = lm.sample(PROMPTS, 6, np.random.default_rng(0))
    assert masks_work(lm.body, lm.device)

    def leaky(trees, width):
        return np.tril(np.ones((len(trees), width, width), bool))

    monkeypatch.setattr(token_tree, "_ancestor_masks", leaky)
    log_prob, gradient = differences(lm, responses)
    assert log_prob > 1e-2
    assert gradient > 1e-2
    assert not masks_work(lm.body, lm.device)


def test_a_training_step_reads_each_prompt_once(trained_lm):
    """Nodes run through the body: prompts once, and what responses do not share."""
    lm = trained_lm(SAMPLING)
    read = []
    handle = lm.body.register_forward_pre_hook(
        lambda _, given, named: read.append(named["input_ids"].numel()), with_kwargs=True
    )
    responses = lm.sample(PROMPTS, 6, np.random.default_rng(0))
    lm.pack([(0,)], [(0,)])  # the probe, if it has not been made yet
    read.clear()
    lm.differentiable_log_prob(PROMPTS, responses)
    handle.remove()
    prompts = sum(map(len, lm.contexts(PROMPTS)))
    later = sum(len(r.token_ids) - 1 for row in responses for r in row)
    assert sum(read) <= prompts + later
    assert 6 * prompts > prompts + later  # it would be seen
