"""TRL as a solver: the built-in solver's gradient, resume, an early stop, a policy given back."""

import dataclasses

import numpy as np
import pytest
import torch
import trl
from small import PROMPTS

from infalign.integrations.trl import TRL
from infalign.integrations.trl import following as following_module
from infalign.integrations.trl import solver as solver_module
from infalign.integrations.trl.rules import Law, needed_options
from infalign.training import Descent
from infalign.training.online import _reinforce

ONE = Descent(steps=1, learning_rate=1e-3)


def trainable(policy):
    return {n: p.detach().clone() for n, p in policy.module.named_parameters() if p.requires_grad}


@pytest.fixture
def step(monkeypatch):
    """One step of a trainer: its gradient, the weights before it, and its responses."""

    def take(bench, trainer="rloo", k=4, per_pass=2, **changes):
        seen = {}

        def remember(self, *_, **__):
            named = self._module.named_parameters()
            seen["gradient"] = {n: p.grad.clone() for n, p in named if p.requires_grad}

        ask = solver_module._Asked.__call__

        def asked(self, prompts, completions, completion_ids, **passed):
            seen["phi"] = ask(self, prompts, completions, completion_ids, **passed)
            seen["ids"], seen["prompt_id"] = completion_ids, passed["prompt_id"]
            return seen["phi"]

        monkeypatch.setattr(following_module.Following, "on_pre_optimizer_step", remember)
        monkeypatch.setattr(solver_module._Asked, "__call__", asked)
        if changes:  # past the refusals, for the negative controls

            def unchecked(law, **options):
                kind = {"rloo": trl.RLOOConfig, "grpo": trl.GRPOConfig}[trainer]
                return kind(**needed_options(trainer, law, k) | options | changes)

            monkeypatch.setattr(solver_module, f"{trainer}_config", unchecked)
        seen["before"] = trainable(bench.policy)
        solver = TRL(ONE, k=k, trainer=trainer, prompts_per_pass=per_pass)
        result = solver.train(bench.policy, bench.problem, rng=np.random.default_rng(1))
        seen["row"] = result.rows[0]
        return seen

    return take


def ours(bench, seen, k=4):
    """What the built-in solver makes of the same responses: log π, log-ratio, Φ/β."""
    policy, problem = bench.policy, bench.problem
    for name, parameter in policy.module.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(seen["before"][name])
            parameter.grad = None
    assert seen["prompt_id"][::k] == problem.ids
    responses = [
        [policy.codec.response(ids, float("nan")) for ids in seen["ids"][start : start + k]]
        for start in range(0, len(seen["ids"]), k)
    ]
    log_prob = policy.differentiable_log_prob(problem.texts, responses)
    log_ratio = log_prob.detach().numpy() - policy.reference_log_prob(problem.texts, responses)
    phi = np.array(seen["phi"]).reshape(log_ratio.shape) / problem.beta
    return responses, log_prob, log_ratio, phi


def off(bench, gradient, scale):
    """Largest difference of a gradient from ours times a scale, over the largest of ours."""
    mine = {n: p.grad * scale for n, p in bench.policy.module.named_parameters() if p.requires_grad}
    apart = max(float((mine[n] - gradient[n]).abs().max()) for n in mine)
    return apart / max(float(value.abs().max()) for value in mine.values())


def rloo_gradient_off(bench, seen):
    _, log_prob, log_ratio, phi = ours(bench, seen)
    (_reinforce(phi - log_ratio, log_prob) / len(PROMPTS)).backward()
    return off(bench, seen["gradient"], bench.problem.beta)


def test_a_step_of_rloo_has_the_gradient_of_the_built_in_solver(bench, step):
    one = bench(moved=0.1, stop=("e", "a"))
    seen = step(one)
    responses, *_ = ours(one, seen)
    reasons = {response.finish_reason for row in responses for response in row}
    assert reasons == {"stop", "length"}, "both endings were seen"
    assert rloo_gradient_off(one, seen) < 1e-4


@pytest.mark.parametrize(
    "changes",
    [{"normalize_advantages": True}, {"reward_clip_range": (0.0, 0.1)}, {"beta": 0.2}],
    ids=str,
)
def test_what_is_refused_has_another_gradient(bench, step, changes):
    """Negative control: the comparison above tells them apart."""
    one = bench(moved=0.1)
    assert rloo_gradient_off(one, step(one, **changes)) > 1e-2


def test_the_kl_is_that_to_the_model_without_adapter(bench, step):
    """TRL would take the adapter as it stands for the reference, and see no KL at all."""
    one = bench(moved=0.1)
    seen = step(one)
    _, _, log_ratio, _ = ours(one, seen)
    assert seen["row"]["kl"] == pytest.approx(log_ratio.mean(), rel=1e-5)
    assert seen["row"]["kl"] > 0.1


def grpo_gradient_off(bench, seen, *, to_go=False):
    """From −A·log π(y), A leave-one-out, plus Σ_t d_t·log π_t, d_t = log(π_t/π_ref,t) as it is.

    With `to_go` a token is charged for all divergence from it on, as the KL's own gradient is.
    """
    policy = bench.policy
    responses, log_prob, _, phi = ours(bench, seen)
    advantage = (phi - phi.mean(1, keepdims=True)) * 4 / 3
    loss = -(torch.as_tensor(advantage) * log_prob).sum()
    for text, row in zip(bench.problem.texts, responses, strict=True):
        for response in row:
            per_token = log_probs_of_tokens(policy, text, response)
            with torch.no_grad(), policy.reference():
                apart = per_token.detach() - log_probs_of_tokens(policy, text, response)
            charged = apart.flip(0).cumsum(0).flip(0) if to_go else apart
            loss = loss + (charged * per_token).sum()
    (loss / log_prob.numel()).backward()
    law = Law(bench.problem.beta, 0.9, policy.sampling.max_new_tokens)
    return off(bench, seen["gradient"], TRL(ONE, k=4, trainer="grpo").loss_scale(law))


def log_probs_of_tokens(policy, text, response):
    context, ids = policy.codec.encode(text), list(response.token_ids)
    logits = policy.module(torch.tensor([[*context, *ids]])).logits[0, len(context) - 1 : -1]
    laws = torch.log_softmax(logits.double() / policy.sampling.temperature, dim=-1)
    return laws[torch.arange(len(ids)), ids]


@pytest.mark.filterwarnings("ignore:GRPO charges")
@pytest.mark.parametrize("tokens", [1, 4])
def test_grpo_charges_each_token_for_its_own_divergence(bench, step, tokens):
    """And its β, (G − 1)/G of the law's, makes up for what its baseline takes from the reward."""
    one = bench(moved=0.1, tokens=tokens)
    seen = step(one, "grpo")
    assert grpo_gradient_off(one, seen) < 1e-4
    assert (grpo_gradient_off(one, seen, to_go=True) < 1e-4) is (tokens == 1), "why RLOO is first"


@pytest.mark.parametrize("changes", [{"beta": 0.3}, {"scale_rewards": "group"}], ids=str)
def test_grpo_as_it_is_refused_has_another_gradient(bench, step, changes):
    one = bench(moved=0.1, tokens=1, beta=0.3)
    assert grpo_gradient_off(one, step(one, "grpo", **changes)) > 1e-2


@torch.no_grad()
def grpo_kl(bench, responses):
    """Mean over responses of Σ_t (1/r_t − 1 + log r_t), r_t = π/π_ref of a token."""
    policy, found = bench.policy, []
    for text, row in zip(bench.problem.texts, responses, strict=True):
        for response in row:
            log_ratio = log_probs_of_tokens(policy, text, response)
            with policy.reference():
                log_ratio = log_ratio - log_probs_of_tokens(policy, text, response)
            found.append(float((torch.exp(-log_ratio) - 1 + log_ratio).sum()))
    return np.mean(found)


@pytest.mark.filterwarnings("ignore:GRPO charges")
@pytest.mark.parametrize("trainer", ["rloo", "grpo"])
def test_the_kl_of_a_step_is_that_of_its_responses(bench, step, trainer):
    """In one pass of GRPO, in any number of RLOO's; negative control: GRPO in several."""
    for passes, per_pass in ((1, 4), (4, 1)):
        one = bench(moved=0.1, stop=("e",))  # responses of several lengths
        seen = step(one, trainer, per_pass=per_pass)
        responses, _, log_ratio, _ = ours(one, seen)
        wanted = log_ratio.mean() if trainer == "rloo" else grpo_kl(one, responses)
        exact = trainer == "rloo" or passes == 1
        assert (abs(seen["row"]["kl"] / wanted - 1) < 1e-4) == exact


@pytest.mark.filterwarnings("ignore:GRPO charges")
def test_grpo_is_not_stopped_at_a_kl_it_does_not_tell(bench):
    one = bench()
    stop = Descent(steps=1, target_kl=0.5)
    with pytest.raises(ValueError, match=r"prompts_per_pass is 1, 4 passes .* needs 4 or more"):
        TRL(stop, k=4, trainer="grpo", prompts_per_pass=1).check(one.policy, PROMPTS)
    TRL(stop, k=4, trainer="grpo", prompts_per_pass=4).check(one.policy, PROMPTS)
    TRL(stop, k=4, prompts_per_pass=1).check(one.policy, PROMPTS)


def test_refusals(bench, monkeypatch):
    from infalign.policies import CausalLM

    one = bench()
    with pytest.raises(ValueError, match="at least 2 responses"):
        TRL(k=1)
    bare = CausalLM(one.policy.module.get_base_model(), one.policy.tokenizer, one.policy.sampling)
    with pytest.raises(TypeError, match="no CausalLM with an adapter"):
        TRL(ONE).train(bare, one.problem, rng=np.random.default_rng(0))
    with pytest.raises(TypeError, match="no CausalLM with an adapter"):
        TRL(ONE).check(dataclasses.make_dataclass("Table", ["module"])(None), PROMPTS)
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(ValueError, match="5 processes cannot share evenly"):
        TRL(ONE).check(one.policy, PROMPTS)
    monkeypatch.delenv("WORLD_SIZE")
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        with pytest.raises(ValueError, match="mixed_precision is bf16"):
            TRL(ONE).train(one.policy, one.problem, rng=np.random.default_rng(0))
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_USE_FSDP", "true")
        with pytest.raises(ValueError, match="FSDP, but this engine's checkpoints"):
            TRL(ONE).train(one.policy, one.problem, rng=np.random.default_rng(0))
    monkeypatch.setattr(solver_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'infalign\[trl\]'"):
        TRL(ONE)
