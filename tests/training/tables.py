"""A softmax table for the solvers' tests: the smallest policy whose optimum can be reached."""

import dataclasses
import types

import numpy as np
import torch

from infalign.protocols import Response


@dataclasses.dataclass(frozen=True)
class Line:
    """A prompt."""

    id: str
    text: str


class Table(torch.nn.Module):
    """π(y_c|x_p) = softmax of a row of free logits, starting at the reference. Float64."""

    def __init__(self, masses):
        super().__init__()
        self.masses = np.asarray(masses, dtype=float)
        self.logits = torch.nn.Parameter(torch.log(torch.as_tensor(self.masses)).clone())
        self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)

    @property
    def module(self):
        return self

    def log_law(self, prompts):
        rows = [int(prompt[1:]) for prompt in prompts]
        return torch.log_softmax(self.logits[rows], dim=1)

    def law(self):
        return torch.log_softmax(self.logits, dim=1).exp().detach().numpy()

    def reference_law(self, prompts):
        return self.masses[[int(prompt[1:]) for prompt in prompts]]

    def responses(self, prompts):
        return [[f"y{c}" for c in range(self.masses.shape[1])] for _ in prompts]

    def sample(self, prompts, k, rng):
        law = self.log_law(prompts).exp().detach().numpy()
        return [
            [Response(f"y{c}", (int(c),)) for c in rng.choice(len(row), k, p=row / row.sum())]
            for row in law
        ]

    def differentiable_log_prob(self, prompts, responses):
        columns = torch.tensor([[int(r.text[1:]) for r in row] for row in responses])
        return torch.gather(self.log_law(prompts), 1, columns)

    def differentiable_scores(self, prompts, responses):
        log_law = self.log_law(prompts)
        log_reference = torch.log(torch.as_tensor(self.reference_law(prompts)))
        kl = (log_law.exp() * (log_law - log_reference)).sum(1, keepdim=True)
        log_prob = self.differentiable_log_prob(prompts, responses)
        return types.SimpleNamespace(log_prob=log_prob, kl=kl.expand_as(log_prob))

    def reference_log_prob(self, prompts, responses):
        rows = [int(prompt[1:]) for prompt in prompts]
        columns = [[int(r.text[1:]) for r in row] for row in responses]
        return np.log(self.masses[np.array(rows)[:, None], columns])


def lines(count):
    """Prompts x0, x1, …; the text carries the row of the table."""
    return [Line(f"id{p}", f"x{p}") for p in range(count)]


def rollouts_of(counts):
    """Each response as often as its count: rollouts exactly proportional to the reference."""
    masses = counts / counts.sum(1, keepdims=True)
    return [
        [
            Response(f"y{c}", (c,), float(np.log(masses[p, c])))
            for c in range(counts.shape[1])
            for _ in range(counts[p, c])
        ]
        for p in range(len(counts))
    ]


def distance(law, target):
    """Largest total-variation distance over prompts."""
    return 0.5 * np.abs(law - target).sum(1).max()
