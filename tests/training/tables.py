"""A softmax table for the solvers' tests: the smallest policy whose optimum can be reached."""

import numpy as np

from infalign.policies.softmax_table import SoftmaxTable
from infalign.policies.tabular import TabularPolicy
from infalign.prompts import Prompt
from infalign.protocols import Response


def lines(count):
    """Prompts x0, x1, …; the text carries the row of the table."""
    return [Prompt(f"id{p}", f"x{p}") for p in range(count)]


def table(masses, kind=SoftmaxTable):
    """Responses y0, y1, … with these masses, to be trained."""
    texts = [[f"y{c}" for c in range(masses.shape[1])] for _ in masses]
    return kind(TabularPolicy([line.text for line in lines(len(masses))], texts, masses))


def law(policy):
    """Masses as they are now."""
    return policy.snapshot().masses


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
