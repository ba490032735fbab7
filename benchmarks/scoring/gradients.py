"""How far the bfloat16 gradient is from the float32 one, in shared and in separate rows.

The embedded model with an adapter that has moved, eight sampled responses to each of six prompts,
advantages that sum to zero in each group: what an online step computes. Prints a line per case.
"""

from collections.abc import Sequence

import numpy as np
import torch

from infalign.assets import asset_folder, embedded_prompts
from infalign.policies import CausalLM, LoRA
from infalign.protocols import Response, Sampling

SAMPLING = Sampling(0.8, 20, ('"', "\n"))
BEFORE = "The reviews below are by people who saw it last week and say what they thought. " * 6
K = 8


def moved(dtype: str) -> CausalLM:
    """The embedded model with an adapter of random weights."""
    path = asset_folder("smollm2-135m-instruct")
    policy = CausalLM.from_pretrained(path, SAMPLING, lora=LoRA(8, 16.0), dtype=dtype, threads=1)
    generator = torch.Generator().manual_seed(0)
    for name, weight in policy.module.named_parameters():
        if weight.requires_grad:
            scale = 0.02 if "lora_B" in name else weight.shape[1] ** -0.5
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return policy


def gradient(
    policy: CausalLM,
    prompts: Sequence[str],
    responses: Sequence[Sequence[Response]],
    advantages: np.ndarray,
    separate: bool,
) -> torch.Tensor:
    """Of Σ advantage·log π, all trainable parameters in one vector."""
    policy.module.zero_grad()
    if separate:  # one call, and so one row, for each response
        pairs = [(p, r) for p, row in zip(prompts, responses, strict=True) for r in row]
        parts = [policy.differentiable_log_prob([p], [[r]])[0] for p, r in pairs]
    else:
        parts = [policy.differentiable_log_prob(prompts, responses).flatten()]
    (torch.as_tensor(advantages.ravel()) * torch.cat(parts)).sum().backward()
    weights = (p.grad for p in policy.module.parameters() if p.grad is not None)
    return torch.cat([grad.flatten().double() for grad in weights])


def main() -> None:
    """Short prompts, then long ones."""
    exact, coarse = moved("float32"), moved("bfloat16")
    rng = np.random.default_rng(1)
    for label, before in (("short", ""), ("long", BEFORE)):
        prompts = [before + prompt for prompt in embedded_prompts(6, "train")]
        responses = coarse.sample(prompts, K, np.random.default_rng(0))
        advantages = rng.normal(size=(len(prompts), K))
        advantages -= advantages.mean(1, keepdims=True)
        given = prompts, responses, advantages
        wanted = gradient(exact, *given, separate=False)
        for form in ("shared", "separate"):
            found = gradient(coarse, *given, separate=form == "separate")
            error = float((found - wanted).norm() / wanted.norm())
            cosine = float(found @ wanted / (found.norm() * wanted.norm()))
            print(f"{label} prompts, {form} rows: {error:.1%} of the norm, cosine {cosine:.4f}")


if __name__ == "__main__":
    main()
