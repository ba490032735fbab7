"""Power: prompts × samples needed to see a difference of win rates.

The measured win rate is a mean over P prompts of Ŵ, the average over all subsets of m samples of
each side, so its variance is (V(m) + σ²)/P: V exact (:mod:`infalign.planner.variance`), σ how much
the true win rate differs from prompt to prompt. A difference d is seen (two-sided test of
confidence c) with power p when d = (z_{(1+c)/2} + z_p)·√((V + σ²)/P).

Two policies measured on the same prompts against the same reference samples are *paired*: what the
reference's samples do to both cancels, and less is needed.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import final

import numpy as np
from scipy import stats

from infalign.planner.target import least_kl
from infalign.planner.variance import ROUNDING, components, difference_components
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import Procedure
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.win_rate import frontier

__all__ = ["PowerRow", "detectable", "naive_variance", "power", "prompts_needed"]


@final
@dataclasses.dataclass(frozen=True)
class PowerRow:
    """What m samples per side and prompt allow to see."""

    samples: int
    """m: of each policy and of the reference, to each prompt."""
    standard_error: float
    """Of one prompt's win rate, by the optimal policy; NaN where that nearly always wins, so that
    nothing but rounding is left of it."""
    prompts_against_reference: int
    """To tell a policy that wins the difference more than the reference does from the reference."""
    prompts_paired: int
    """To tell two policies that differ by it, same prompts and same reference samples."""
    prompts_unpaired: int
    """The same with reference samples of their own, on the same prompts."""
    detectable: float
    """Paired difference seen with the given number of prompts; NaN where none was given."""

    @property
    def responses_paired(self) -> int:
        """Responses to sample in all for the paired comparison: both policies and the reference."""
        return 3 * self.samples * self.prompts_paired


def power(
    procedure: Procedure,
    difference: float,
    samples: Sequence[int],
    *,
    kl: float = 1.0,
    prompts: int | None = None,
    prompt_sd: float = 0.0,
    power: float = 0.8,
    confidence: float = 0.95,
    reference_procedure: Procedure | None = None,
) -> list[PowerRow]:
    """Prompts needed for each number of samples, by optimal policies that differ so much.

    Against the reference: the optimal policy whose win rate is W₀ + d, W₀ that of not moving.
    Between policies: the optimum at `kl`, W*, and the optimal policy of win rate W* − d.

    Args:
        procedure: decodes both sides; picks by rank.
        difference: d, a difference of win rates in (0, 1).
        samples: m per side and prompt, each ≥ N.
        kl: of the better of the two policies, nats.
        prompts: also give what is detectable with so many.
        prompt_sd: σ, standard deviation over prompts of the true win rate (or difference).
        power: chance to see it, in (0, 1).
        confidence: of the test, in (0, 1).
        reference_procedure: decodes the reference; the same where None.

    Raises:
        ValueError: if no optimal policies differ by as much; on numbers out of range.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> row = power(BestOfN(4), 0.02, [16])[0]
        >>> row.prompts_paired < row.prompts_unpaired
        True
    """
    refuse_difference(difference)
    best = optimal_transform(procedure, kl=kl, reference_procedure=reference_procedure)
    start = float(frontier(procedure, [0.0], "optimal", reference_procedure)[0])
    if not difference < best.win_rate - start:
        raise ValueError(
            f"difference is {difference:g}; at KL {kl:g} the best policy wins {best.win_rate:.4f} "
            f"against {start:.4f} for the reference, so no two policies that far apart are "
            "planned for. Ask for a smaller difference or a larger KL."
        )

    top, lower = (
        TiltedPolicy(best, best.beta),
        _reaching(best.win_rate - difference, procedure, reference_procedure),
    )
    reaching = _reaching(start + difference, procedure, reference_procedure)
    against = components(reaching, procedure, reference_procedure)
    single = components(top, procedure, reference_procedure)
    other = components(lower, procedure, reference_procedure)
    paired = difference_components(top, lower, procedure, reference_procedure)
    settings = {"prompt_sd": prompt_sd, "power": power, "confidence": confidence}

    def row(m: int) -> PowerRow:
        shared = paired.variance(m)
        return PowerRow(
            m,
            _standard_error(single.variance(m)),
            prompts_needed(difference, against.variance(m), **settings),
            prompts_needed(difference, shared, **settings),
            prompts_needed(difference, single.variance(m) + other.variance(m), **settings),
            math.nan if prompts is None else detectable(prompts, shared, **settings),
        )

    return [row(m) for m in samples]


def _standard_error(variance: float) -> float:
    return math.sqrt(variance) if variance > ROUNDING else math.nan


def _reaching(target: float, procedure: Procedure, reference: Procedure | None) -> TiltedPolicy:
    """The optimal policy of that win rate."""
    kl = least_kl(target, procedure, reference_procedure=reference)
    best = optimal_transform(procedure, kl=kl, reference_procedure=reference)
    return TiltedPolicy(best, best.beta)


def prompts_needed(
    difference: float,
    variance: float,
    *,
    prompt_sd: float = 0.0,
    power: float = 0.8,
    confidence: float = 0.95,
) -> int:
    """P = ⌈(z_{(1+c)/2} + z_p)²·(V + σ²)/d²⌉ prompts, at least 2.

    Args:
        difference: d in (0, 1).
        variance: V of one prompt's estimate, given the prompt.
        prompt_sd: σ ≥ 0, of the true value over prompts.
        power: chance to see the difference, in (0, 1).
        confidence: 1 − chance to see one where there is none, in (0, 1).

    Raises:
        ValueError: a number out of range.

    Example:
        A coin per prompt, five points:

        >>> prompts_needed(0.05, 0.25)
        785
    """
    refuse_difference(difference)
    spread = _spread(variance, prompt_sd)
    return max(2, math.ceil((_scores(power, confidence) / difference) ** 2 * spread))


def detectable(
    prompts: int,
    variance: float,
    *,
    prompt_sd: float = 0.0,
    power: float = 0.8,
    confidence: float = 0.95,
) -> float:
    """The difference that P prompts show with that power: `prompts_needed` solved for d.

    Example:
        >>> round(detectable(785, 0.25), 4)
        0.05
    """
    if prompts != int(prompts) or prompts < 2:
        raise ValueError(f"prompts is {prompts}; an integer of at least 2 is needed for an error.")
    return _scores(power, confidence) * math.sqrt(_spread(variance, prompt_sd) / prompts)


def naive_variance(
    win_rate: float, candidates: int, samples: int, reference_candidates: int | None = None
) -> float:
    """W(1 − W)/⌊m/N⌋: what decoding disjoint groups of N samples would leave, for comparison.

    Example:
        >>> naive_variance(0.5, 4, 8)
        0.125
    """
    groups = samples // max(candidates, reference_candidates or candidates)
    if groups < 1:
        raise ValueError(f"{samples} samples do not make one group of {candidates} candidates.")
    return win_rate * (1 - win_rate) / groups


def refuse_difference(difference: float) -> None:
    """Raise ValueError unless a difference of win rates lies in (0, 1)."""
    if not 0 < difference < 1:
        raise ValueError(
            f"difference is {difference}; a difference of win rates in (0, 1) is needed. 0.02 is "
            "two points."
        )


def _spread(variance: float, prompt_sd: float) -> float:
    if not (variance >= 0 and prompt_sd >= 0 and np.isfinite(variance + prompt_sd)):
        raise ValueError(
            f"variance {variance} and prompt_sd {prompt_sd} came; both must be ≥ 0 and finite."
        )
    return variance + prompt_sd**2


def _scores(power: float, confidence: float) -> float:
    for name, value in (("power", power), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(
                f"{name} is {value}; a probability strictly between 0 and 1 is needed, such as "
                "0.8 for power and 0.95 for confidence."
            )
    return float(stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power))
