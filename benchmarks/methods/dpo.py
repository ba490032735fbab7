"""DPO on pairs of reference responses."""

import dataclasses
from typing import Literal, final

import numpy as np
import torch

from benchmarks.methods.method import Method
from benchmarks.methods.pairs import preferences

__all__ = ["DPO"]


@final
@dataclasses.dataclass(frozen=True)
class DPO(Method):
    """E over pairs y, y′ of π_ref: −p·log σ(β·(s(y) − s(y′))) both ways, s = log(π/π_ref).

    `bradley-terry`: p = σ(r(y) − r(y′)), as if people had labelled; optimum π_ref·exp(r/β)/Z.
    `ranked`: p = 1 where y has more reward, ½ where they tie, as pairs are usually made of a reward
    model. Then every margin may grow for ever: there is no optimum at finite KL, and how far a run
    gets is decided by β together with the number and size of its steps.

    Reference: Direct Preference Optimization (arXiv:2305.18290)
    """

    beta: float
    """β > 0."""
    labels: Literal["ranked", "bradley-terry"] = "ranked"
    """Who says which response of a pair is preferred."""

    def tables(self, store):
        if self.labels == "ranked":
            preferred = preferences(store.rewards)
        else:
            preferred = 1 / (1 + np.exp(store.rewards[:, None, :] - store.rewards[:, :, None]))
        one, other = np.triu_indices(store.rewards.shape[1], 1)
        weights = 2 * store.masses[:, one] * store.masses[:, other]
        return {"weights": weights, "preferred": preferred[:, one, other]}

    def loss(self, log_ratio, reference, tables):
        one, other = torch.triu_indices(c := log_ratio.shape[-1], c, 1, device=log_ratio.device)
        gaps = self.beta * (log_ratio[:, one] - log_ratio[:, other])
        # −p·log σ(g) − (1−p)·log σ(−g)
        losses = torch.nn.functional.softplus(-gaps) + (1 - tables["preferred"]) * gaps
        return (tables["weights"] * losses).sum(-1)
