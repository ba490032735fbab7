"""Markov chains over responses: rewrite a part, keep it or not; in the limit the aligned policy.

A chain needs no weights and no logits, only the policy's own way to write again what was erased.
`resamplers` erase, `kernels` decide what to keep, `targets` say towards which law, `chain` is the
engine that puts any three of them together, `diagnostics` tells how far it has come.
"""

from infalign.decoding.mcmc.chain import MCMC
from infalign.decoding.mcmc.diagnostics import effective_samples, split_r_hat
from infalign.decoding.mcmc.kernels import importance_resampling, metropolis_hastings
from infalign.decoding.mcmc.presets import mcmc, qalign
from infalign.decoding.mcmc.resamplers import MaskResample, Resampler, SuffixResample
from infalign.decoding.mcmc.targets import (
    BestOfNTilt,
    CalibratedTilt,
    RewardTilt,
    Target,
    best_of_n_log_ratio,
    compose_betas,
)

__all__ = [
    "MCMC",
    "BestOfNTilt",
    "CalibratedTilt",
    "MaskResample",
    "Resampler",
    "RewardTilt",
    "SuffixResample",
    "Target",
    "best_of_n_log_ratio",
    "compose_betas",
    "effective_samples",
    "importance_resampling",
    "mcmc",
    "metropolis_hastings",
    "qalign",
    "split_r_hat",
]
