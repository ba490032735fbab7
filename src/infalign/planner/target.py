"""Target: the least KL that reaches a win rate, and the cheapest (KL, N) pairs.

The frontier W*(KL) rises, so the least KL is its root. Against a reference decoded *alike* the
opponent grows with N, and pairs of different N do not answer the same question. Asking what reaches
a win rate most cheaply therefore takes a fixed opponent: by default the reference as it would be
served without any of this, a single sample, where more candidates buy win rate by themselves.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from infalign.planner.judging import judged_by, reason_of, refuse_agreement
from infalign.planner.limit import best_policy, known_transform
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import BestOfN, Identity, Procedure, Uniform
from infalign.quantile.ties import NO_TIES, Ties
from infalign.quantile.tilting import TiltedPolicy
from infalign.quantile.transforms import Transform
from infalign.quantile.win_rate import frontier

__all__ = ["LARGEST_KL", "OutOfReach", "Reach", "cheapest", "least_kl"]

LARGEST_KL = 8.0
"""Nats; beyond it an aligned policy gives only what the reference says once in three thousand."""
SMALLEST_KL = 1e-6
"""Nats; a target reached below it is reached by the reference."""


NEARLY = 0.98
"""How much of the KL that only an infinite reward would reach may be gone."""


class OutOfReach(ValueError):
    """A win rate that no KL considered reaches; `reached` is the best that is."""

    def __init__(self, target: float, procedure: Procedure, reached: float, kl: float) -> None:
        super().__init__(_unreached(target, procedure, reached, kl))
        self.reached = reached


@final
@dataclasses.dataclass(frozen=True)
class Reach:
    """One way to the target: a procedure with the least KL that reaches it, or none."""

    procedure: str
    """Its name."""
    candidates: float
    """Expected responses sampled for one answer."""
    kl: float
    """The least KL that reaches the target, nats: 0 where no training is needed, NaN where even
    the largest KL does not reach it."""
    beta: float
    """KL coefficient to train with; NaN where there is nothing to train."""
    is_efficient: bool
    """Whether no other way has both less KL and fewer candidates."""
    is_knee: bool
    """Whether it is the efficient way farthest below the line between the two extreme ones, KL
    against log candidates, both scaled to [0,1]."""
    is_cheapest: bool
    """Whether candidates + price·KL is least; nowhere where no price was given."""
    unsolved: str | None = None
    """Why nothing is known of it, where its optimum was not found; KL and β are then NaN."""


def least_kl(
    target_win_rate: float,
    procedure: Procedure,
    transform: str | Transform = "optimal",
    *,
    reference_procedure: Procedure | None = None,
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
    largest_kl: float = LARGEST_KL,
) -> float:
    """The least KL at which the win rate after decoding is the target; 0 where no KL is needed.

    Args:
        target_win_rate: in (0, 1).
        procedure: decodes the aligned policy.
        transform: a transform, or "optimal" for the least KL of any policy.
        reference_procedure: decodes the reference; the same procedure where None.
        agreement: Spearman ρ between the selecting and the judging reward.
        ties: where the selecting reward is equal.
        largest_kl: how far a policy may go, nats.

    Raises:
        ValueError: a target that even the largest KL does not reach.

    Example:
        >>> from infalign.quantile.procedures import BestOfN
        >>> round(least_kl(0.9, BestOfN(4)), 4)
        0.6442
        >>> least_kl(0.75, BestOfN(4), reference_procedure=BestOfN(1))
        0.0
    """
    refuse_target(target_win_rate)
    refuse_agreement(agreement)
    judge, largest_kl = judged_by(agreement, ties), min(largest_kl, NEARLY * ties.largest_kl)
    transform = known_transform(transform, procedure, ties)
    start = float(frontier(procedure, [0.0], transform, reference_procedure, **judge)[0])
    if start >= target_win_rate:
        return 0.0
    if agreement <= 0:
        raise OutOfReach(target_win_rate, procedure, start, 0.0)

    def excess(kl: float) -> tuple[float, float]:
        """Win rate above the target, and its slope where that is known: dW*/dKL = β."""
        if isinstance(transform, Transform):
            rate = frontier(procedure, [kl], transform, reference_procedure, **judge)[0]
            return float(rate) - target_win_rate, 0.0
        best = optimal_transform(procedure, kl=kl, reference_procedure=reference_procedure, **judge)
        return best.win_rate - target_win_rate, best.beta

    if isinstance(transform, str) and transform != "optimal":
        raise ValueError(f"transform is {transform!r}; give a transform object, or 'optimal'.")
    low, high = 0.0, min(0.1, largest_kl)
    while (found := excess(high)[0]) < 0:  # upwards: large KLs take longest to solve for
        if high >= largest_kl:
            raise OutOfReach(target_win_rate, procedure, found + target_win_rate, largest_kl)
        low, high = high, min(3 * high, largest_kl)
    return _root(excess, low, high)


def _root(excess: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """The KL in [low, high] at which the excess is 0: Newton's steps, bisection where they leave.

    The frontier is concave where W is, so that steps from the left rise to the root.
    """
    kl = math.sqrt(max(low, SMALLEST_KL) * high)
    for _ in range(200):
        value, slope = excess(kl)
        low, high = (kl, high) if value < 0 else (low, kl)
        if abs(value) < 1e-12 or high - low < 1e-12 * high or high <= SMALLEST_KL:
            break
        ahead = kl - value / slope if slope else math.nan
        kl = ahead if low < ahead < high else math.sqrt(max(low, SMALLEST_KL / 2) * high)
    return kl


def cheapest(
    target_win_rate: float,
    procedures: Sequence[Procedure | int],
    *,
    reference_procedure: Procedure | None = Identity(),  # noqa: B008  # frozen
    agreement: float = 1.0,
    ties: Ties = NO_TIES,
    kl_price: float | None = None,
    largest_kl: float = LARGEST_KL,
) -> list[Reach]:
    """For each procedure the least KL that reaches the target, and which pairs are worth having.

    Candidates are paid at every answer, KL by training and by what the policy forgets; no price
    makes them one without the user, so all efficient pairs are marked.

    Args:
        target_win_rate: in (0, 1).
        procedures: procedures, or numbers N for best-of-N.
        reference_procedure: decodes the reference; a single sample by default, as a fixed opponent.
            None: by each row's own procedure, an opponent that grows with N.
        agreement: Spearman ρ between the selecting and the judging reward.
        kl_price: candidates per answer that one nat is worth.
        largest_kl: how far a policy may go, nats.

    Raises:
        ValueError: if none of them reaches it.
        ArithmeticError: if the optimum was found for none of them.

    Example:
        >>> for way in cheapest(0.9, [1, 4, 16]):
        ...     print(way.procedure, round(way.kl, 3), way.is_efficient)
        best-of-1 1.303 True
        best-of-4 0.112 True
        best-of-16 0.0 True
    """
    refuse_price(kl_price)
    chosen = [one if isinstance(one, Procedure) else BestOfN(one) for one in procedures]
    if not chosen:
        raise ValueError("No procedure came; give numbers of candidates such as [1, 2, 4, 8].")
    opponent = {"reference_procedure": reference_procedure, "agreement": agreement, "ties": ties}
    kls, policies, unsolved = _least_kls(target_win_rate, chosen, largest_kl, opponent)
    laws = [policy or Uniform() for policy in policies]
    counts = [p.mean_candidates(law) for p, law in zip(chosen, laws, strict=True)]
    efficient = [_is_efficient(i, kls, counts) for i in range(len(kls))]
    knee, least = _knee(kls, counts, efficient), _cheapest(kls, counts, kl_price)
    betas = [policy.beta if policy else math.nan for policy in policies]
    return [
        Reach(p.name, counts[i], kls[i], betas[i], efficient[i], i == knee, i == least, unsolved[i])
        for i, p in enumerate(chosen)
    ]


def _least_kls(
    target_win_rate: float,
    procedures: Sequence[Procedure],
    largest_kl: float,
    opponent: dict[str, Any],
) -> tuple[list[float], list[TiltedPolicy | None], list[str | None]]:
    """KLs, policies, and why one was not solved; NaN for those out of reach. An error for all."""
    refuse_target(target_win_rate)
    refuse_agreement(opponent["agreement"])
    kls: list[float] = []
    policies: list[TiltedPolicy | None] = []
    unsolved: list[str | None] = []
    beyond: list[OutOfReach] = []
    for procedure in procedures:
        kl, policy, reason = math.nan, None, None
        try:
            found = least_kl(target_win_rate, procedure, largest_kl=largest_kl, **opponent)
            policy = best_policy(procedure, found, **opponent) if found > 0 else None
            kl = found
        except OutOfReach as error:
            beyond.append(error)
        except ArithmeticError as error:
            reason = reason_of(error)
        kls.append(kl)
        policies.append(policy)
        unsolved.append(reason)
    if len(beyond) == len(procedures):
        raise max(beyond, key=lambda error: error.reached)
    if all(unsolved):
        raise ArithmeticError(" ".join(filter(None, unsolved)))
    return kls, policies, unsolved


def refuse_target(target_win_rate: float) -> None:
    """Raise ValueError unless a win rate lies in (0, 1)."""
    if not 0 < target_win_rate < 1:
        raise ValueError(
            f"A target win rate of {target_win_rate:g} came; a share strictly between 0 and 1 is "
            "needed, and one above 0.5 to be worth training for. 0.9 is nine wins out of ten."
        )


def refuse_price(kl_price: float | None) -> None:
    """Raise ValueError unless a price is positive."""
    if kl_price is not None and not (kl_price > 0 and math.isfinite(kl_price)):
        raise ValueError(
            f"kl_price is {kl_price}; it says how many candidates per answer one nat is worth, a "
            "number > 0."
        )


def _unreached(target: float, procedure: Procedure, reached: float, kl: float) -> str:
    return (
        f"A win rate of {target:.12g} is out of reach with {procedure.name}: at KL {kl:g} nats, as "
        f"far as a policy may go, the best is {_digits(reached)}. Ask for less, use more "
        "candidates, or a reward that agrees better with the judge."
    )


def _digits(rate: float) -> str:
    """Four decimals, and two more than the nines."""
    nines = -math.log10(max(1 - rate, 1e-12)) if rate > 0 else 0.0
    return f"{rate:.{max(4, min(12, math.ceil(nines) + 2))}f}"


def _is_efficient(i: int, kls: Sequence[float], counts: Sequence[float]) -> bool:
    if math.isnan(kls[i]):
        return False
    here = (kls[i], counts[i])
    others = [(k, c) for k, c in zip(kls, counts, strict=True) if not math.isnan(k)]
    return not any(k <= here[0] and c <= here[1] and (k, c) != here for k, c in others)


def _knee(kls: Sequence[float], counts: Sequence[float], efficient: Sequence[bool]) -> int | None:
    """The efficient pair farthest below the chord; None where fewer than three are efficient."""
    places = sorted({(counts[i], kls[i], i) for i in range(len(kls)) if efficient[i]})
    if len(places) < 3:
        return None
    x = np.log([count for count, _, _ in places])
    y = np.array([kl for _, kl, _ in places])
    below = 1 - (x - x[0]) / (x[-1] - x[0]) - (y - y[-1]) / (y[0] - y[-1])
    return places[int(np.argmax(below))][2] if below.max() > 1e-9 else None


def _cheapest(kls: Sequence[float], counts: Sequence[float], kl_price: float | None) -> int | None:
    if kl_price is None:
        return None
    costs = [c + kl_price * k for k, c in zip(kls, counts, strict=True)]
    return int(np.nanargmin(costs))
