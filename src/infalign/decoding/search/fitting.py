"""Fitting a value head to stored rollouts: regression of the final reward on the states before it.

The squared error's minimiser is the mean E[r | state]. For the soft value β·log E[exp(r/β) | state]
the loss is e^z − w·z with w = exp(r/β) over its mean, whose minimiser is z = log E[w | state]: no
logarithm of an average over few rollouts is taken, which would be too low.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int

from infalign.decoding.counts import refuse_count
from infalign.decoding.search.states import all_states, examples, flat
from infalign.decoding.search.value_head import ValueHead, identity_of
from infalign.policies.causal_lm import CausalLM
from infalign.prompts import Prompt
from infalign.protocols import Response
from infalign.quantile.calibration import Calibration
from infalign.quantile.transforms import refuse_beta
from infalign.rollouts import RolloutStore

__all__ = ["HeadFit", "fit_value_head", "fit_value_head_to_store", "value_error"]

_BATCH = 256
_PATIENCE = 20


@final
@dataclasses.dataclass(frozen=True)
class HeadFit:
    """How a value head is fitted.

    Raises:
        ValueError: a setting out of range.
    """

    beta: float | None = None
    """None: the mean value. > 0: the soft value for this β, in the rewards' unit."""
    hidden: int = 0
    """Width of a hidden layer; 0: linear."""
    epochs: int = 200
    """Passes over the examples at most. ≥ 1."""
    penalty: float = 1e-2
    """Decoupled weight decay. ≥ 0."""
    most_examples: int = 262_144
    """States held at most, 4·D bytes each; of more, a random choice. ≥ 1000."""

    def __post_init__(self) -> None:
        if self.beta is not None:
            refuse_beta(self.beta)
        refuse_count(self.hidden, "hidden", "a value head", least=0)
        refuse_count(self.epochs, "epochs", "fitting a value head")
        refuse_count(self.most_examples, "most_examples", "fitting a value head", least=1000)
        if not 0 <= self.penalty < np.inf:
            raise ValueError(f"penalty is {self.penalty}; a weight decay is ≥ 0 and finite.")


@dataclasses.dataclass(frozen=True)
class _Examples:
    """States with what came of them."""

    states: torch.Tensor
    """M D."""
    targets: torch.Tensor
    """M: standardised rewards, or weights exp(r/β) over their mean."""


def fit_value_head(
    lm: CausalLM,
    prompts: Sequence[str],
    responses: Sequence[Sequence[Response]],
    rewards: Float[np.ndarray, "P K"],
    *,
    fit: HeadFit | None = None,
    name: str = "value head",
    rng: np.random.Generator,
) -> ValueHead:
    """A head that tells from the state at any token what the response will be rewarded with.

    Every token of every rollout, and its prompt's end, is an example, or as many of them, chosen
    at random, as `fit.most_examples` allows to hold. A fifth of the prompts is
    kept apart to choose when to stop; `record` has the errors there of the head and of the best
    constant. The model stays as it is.

    Args:
        lm: drew the rollouts; its weights as they are now, adapter included.
        prompts: P ≥ 2.
        responses: P lists of K rollouts.
        rewards: theirs, raw or calibrated: the unit of the value.
        fit: mean or soft value, linear or not.
        name: what a figure's legend shows.
        rng: splits prompts, shuffles examples and draws initial weights.

    Raises:
        ValueError: shapes that do not fit, fewer than two prompts, or rewards that are not finite.

    Reference:
        Controlled Decoding from Language Models (arXiv:2310.17022), the prefix scorer that is
        regressed on final rewards.
    """
    fit, rewards = fit or HeadFit(), np.asarray(rewards, dtype=np.float64)
    _refuse(prompts, responses, rewards)
    states, rows = examples(lm, prompts, responses, fit.most_examples, rng)
    held = _apart(len(prompts), rng)[rows // rewards.shape[1]]
    shift, slope, targets = _targets(rewards, fit.beta, rows[~held])
    wanted = targets.ravel()[rows].astype(np.float32)
    center, scale = states[~held].mean(0), states[~held].std(0) + 1e-6
    learned, judged = (
        _Examples(torch.from_numpy((states[part] - center) / scale), torch.from_numpy(wanted[part]))
        for part in (~held, held)
    )
    network = _network(fit, learned, rng)
    errors = _trained(network, fit, learned, judged, rng)
    told = {"name": name, "examples": len(rows), **dataclasses.asdict(fit), **errors}
    numbers = (center.astype(np.float64), scale.astype(np.float64), shift, slope)
    return ValueHead(_layers(network), *numbers, identity_of(lm), told)


def fit_value_head_to_store(
    lm: CausalLM,
    store: RolloutStore,
    prompts: Sequence[Prompt],
    reward: str,
    *,
    calibration: Calibration | None = None,
    fit: HeadFit | None = None,
    rng: np.random.Generator,
) -> ValueHead:
    """As :func:`fit_value_head`, from the rollouts and rewards of a store.

    Args:
        lm: whose rollouts the store holds.
        store: has rollouts of the prompts, and their rewards.
        prompts: to use.
        reward: name of the rewards.
        calibration: turns rewards into quantiles first; None leaves them raw.
        fit: see there.
        rng: see there.

    Raises:
        ValueError: the store is of another policy or sampling law, or see there.
    """
    store.require(lm, store.seed)
    rewards = store.rewards(reward, prompts)
    if calibration is not None:
        rewards = calibration([prompt.id for prompt in prompts], rewards)
    responses = store.responses(prompts, rewards.shape[1])
    texts = [prompt.text for prompt in prompts]
    return fit_value_head(lm, texts, responses, rewards, fit=fit, name=f"{reward} to come", rng=rng)


def value_error(
    head: ValueHead,
    lm: CausalLM,
    prompts: Sequence[str],
    responses: Sequence[Sequence[Response]],
    rewards: Float[np.ndarray, "P K"],
) -> float:
    """Mean squared distance of the head's values from final rewards, over every token.

    For rollouts the head has not seen. The smallest it can be is the mean variance of what may
    still come, not 0.
    """
    asked, ids = flat(prompts, responses)
    told, squares, count = np.asarray(rewards).ravel(), 0.0, 0
    for states, rows in all_states(lm, asked, ids):
        squares += float(((head(states) - told[rows]) ** 2).sum())
        count += len(rows)
    return squares / count


def _refuse(
    prompts: Sequence[str],
    responses: Sequence[Sequence[Response]],
    rewards: Float[np.ndarray, "P K"],
) -> None:
    shape = (len(responses), len(responses[0]) if len(responses) else 0)
    if len(prompts) < 2 or rewards.shape != shape or len(prompts) != shape[0] or not shape[1]:
        raise ValueError(
            f"{len(prompts)} prompts came with {shape[0]} lists of responses and rewards of shape "
            f"{rewards.shape}; at least two prompts are needed, with one reward per response."
        )
    if not np.isfinite(rewards).all():
        p, k = map(int, np.argwhere(~np.isfinite(rewards))[0])
        raise ValueError(f"reward [{p}][{k}] is {rewards[p, k]}; a head is fitted to numbers.")


def _apart(count: int, rng: np.random.Generator) -> np.ndarray:
    """Which prompts are kept apart: a fifth, at least one."""
    apart = np.zeros(count, dtype=bool)
    apart[rng.permutation(count)[: max(1, count // 5)]] = True
    return apart


def _targets(
    rewards: Float[np.ndarray, "P K"], beta: float | None, learned: Int[np.ndarray, "M"]
) -> tuple[float, float, Float[np.ndarray, "P K"]]:
    """Shift and slope of the value, and what the last layer is to say (or e to the power of it).

    Over the examples learned from, `learned` saying which rollouts they are of, the targets have
    mean 0 and spread 1 (or mean 1), so that the constant to begin with is 0.
    """
    seen = rewards.ravel()[learned]
    if beta is not None:
        top = float(seen.max())  # of these: their mean weight is then no smaller than 1/M
        mean = float(np.exp((seen - top) / beta).mean())
        with np.errstate(over="ignore"):
            weights = (np.exp((rewards - top) / beta) / mean).astype(np.float32)
        if not np.isfinite(weights).all():
            raise ValueError(
                f"beta is {beta:g} and rewards differ by {np.ptp(rewards):g}: exp(r/β) of a prompt "
                "kept apart is too large for a number. Give a larger beta, or calibrate the reward."
            )
        return top + beta * float(np.log(mean)), beta, weights
    shift, slope = float(seen.mean()), float(seen.std())
    slope = slope if slope > 0 else 1.0
    return shift, slope, (rewards - shift) / slope


def _network(fit: HeadFit, learned: _Examples, rng: np.random.Generator) -> torch.nn.Sequential:
    """Begins as the best constant, which the targets are made to have at 0."""
    width = learned.states.shape[1]
    last = torch.nn.Linear(fit.hidden or width, 1)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    if not fit.hidden:
        return torch.nn.Sequential(last)
    first = torch.nn.Linear(width, fit.hidden)
    drawn = rng.normal(0, np.sqrt(2 / width), (fit.hidden, width)).astype(np.float32)
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(drawn))
        first.bias.zero_()
    return torch.nn.Sequential(first, torch.nn.ReLU(), last)


def _loss(network: torch.nn.Module, examples: _Examples, fit: HeadFit) -> torch.Tensor:
    said = network(examples.states)[:, 0]
    if fit.beta is None:
        return ((said - examples.targets) ** 2).mean()
    return (said.exp() - examples.targets * said).mean()


def _trained(
    network: torch.nn.Module,
    fit: HeadFit,
    learned: _Examples,
    judged: _Examples,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Adam until the examples kept apart are told no better; ends at the best. The errors there."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=fit.penalty)

    def error() -> float:
        with torch.no_grad():
            return float(_loss(network, judged, fit))

    constant = best = error()
    kept, waited, epoch = copy.deepcopy(network.state_dict()), 0, 0
    while epoch < fit.epochs and waited < _PATIENCE:
        for rows in torch.from_numpy(rng.permutation(len(learned.targets))).split(_BATCH):
            optimizer.zero_grad()
            _loss(network, _Examples(learned.states[rows], learned.targets[rows]), fit).backward()
            optimizer.step()
        epoch, now, waited = epoch + 1, error(), waited + 1
        if now < best:
            best, kept, waited = now, copy.deepcopy(network.state_dict()), 0
    network.load_state_dict(kept)
    return {"epochs_taken": epoch, "error": best, "error_of_constant": constant}


def _layers(network: torch.nn.Sequential) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    linear = [part for part in network if isinstance(part, torch.nn.Linear)]
    return tuple(
        (
            layer.weight.detach().numpy().astype(np.float64),
            layer.bias.detach().numpy().astype(np.float64),
        )
        for layer in linear
    )
