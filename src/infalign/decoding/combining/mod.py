"""Multi-objective decoding: policies in, policy out, nothing trained."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from infalign.decoding.combining.divergence import Divergence, excess
from infalign.decoding.combining.divergences import JensenShannon, ReverseKL
from infalign.decoding.combining.naming import divergence_of
from infalign.decoding.combining.sequence_level import SequencePolicy
from infalign.decoding.combining.token_level import CombinedPolicy
from infalign.policies import TabularLM, streams
from infalign.policies.counts import refuse_count
from infalign.protocols import LogitPolicy
from infalign.quantile.transforms import refuse_beta

__all__ = ["combine_tables", "mod"]

Level = Literal["token", "prefix", "sequence"]


class _Asked(NamedTuple):
    """What is to be combined: members without weight left out, the reference where needed."""

    policies: tuple[Any, ...]
    weights: tuple[float, ...]
    reference: Any
    divergence: Divergence


def mod(
    policies: Sequence[LogitPolicy],
    weights: Sequence[float],
    *,
    reference: LogitPolicy | None = None,
    betas: Sequence[float] | None = None,
    beta: float | None = None,
    divergence: str | float | Divergence = "reverse_kl",
    level: Level = "token",
    rows: int = streams.ROWS,
    tries: int = 8,
    rounds: int = 30,
    pilot: int = 512,
    seed: int = 0,
) -> CombinedPolicy | SequencePolicy:
    """The policy that is optimal for Σ w_i R_i, made of policies each aligned to one R_i.

    It is right where every policy is (near) the optimum of E[R_i] − β_i·D_f(π‖π_ref) for the same
    reference and divergence. The weights are of the rewards as they were trained on: on rewards of
    different scale they mean nothing, on calibrated ones they are comparable.

    With `betas` and `beta` the result is the optimum of E[Σ w_i R_i] − β·D_f for any β: the
    exponents w_i·β_i/β of the policies need not sum to 1, and the reference takes the rest. One
    policy and another β change how far it was trained, at decoding time (realignment).

    Levels, from cheap to exact:
        * `token`: the formula on each next-token law, normalised there. For whole responses only
          an approximation, even for the reverse KL: it does not look ahead.
        * `prefix`: the paper's decoder, the formula on the probabilities of whole beginnings, its
          constant dropped. For greedy and beams. But for the reverse KL, Σ w_i β_i/β ≤ 1.
        * `sequence`: the formula on whole responses, drawn exactly in the limit of `rounds` by
          importance resampling of token-level draws: 1 + `tries`·`rounds` responses for each, and
          once for each prompt `pilot` more.

    Args:
        policies: M that show their laws, of one vocabulary, stop tokens and sampling settings.
        weights: w_i ≥ 0 of the rewards; they sum to 1 unless `betas` are given.
        reference: what all were aligned from. At Σ w_i β_i/β = 1 the reverse KL does without it,
            and so do α-divergences at level `prefix`.
        betas: KL coefficient of each policy's training.
        beta: KL coefficient wanted.
        divergence: "reverse_kl", "forward_kl", "jsd", or a number 0 < α < 1.
        level: see above.
        rows: responses written side by side.
        tries, rounds, pilot, seed: of level `sequence`, see :class:`.SequencePolicy`.

    Raises:
        ValueError: weights, betas or settings out of range; a divergence that is no barrier (total
            variation, χ²); vocabularies, stop tokens or sampling settings that differ; no
            reference where one is needed.
        TypeError: a policy that does not show its next-token laws.

    Reference:
        Decoding-Time Language Model Alignment with Multiple Objectives (arXiv:2406.18853);
        Decoding-time Realignment of Language Models (arXiv:2402.02992).

    Example:
        >>> brief = TabularLM(("x",), ("a",), np.array([[[0.2, 0.8]]]))
        >>> wordy = TabularLM(("x",), ("a",), np.array([[[0.9, 0.1]]]))
        >>> for weight in (0.2, 0.8):
        ...     both = mod([brief, wordy], [1 - weight, weight])
        ...     print(both.greedy(("x",))[0].text or "nothing", both.name)
        nothing 0.8 table of tokens + 0.2 table of tokens
        a 0.2 table of tokens + 0.8 table of tokens
    """
    if level not in ("token", "prefix", "sequence"):
        raise ValueError(f"level is {level!r}; it must be 'token', 'prefix' or 'sequence'.")
    for name, count in (("rows", rows), ("tries", tries), ("rounds", rounds), ("pilot", pilot)):
        refuse_count(count, name, "mod")
    refuse_count(seed, "seed", "mod", least=0)
    asked = _asked(policies, weights, reference, betas, beta, divergence, level)
    _refuse_unlike((*policies, *([reference] if reference is not None else [])))
    combined = CombinedPolicy(*asked, "prefix" if level == "prefix" else "token", rows)
    if level != "sequence":
        return combined
    return SequencePolicy(combined, tries, rounds, pilot, seed)


def combine_tables(
    policies: Sequence[TabularLM],
    weights: Sequence[float],
    *,
    reference: TabularLM | None = None,
    betas: Sequence[float] | None = None,
    beta: float | None = None,
    divergence: str | float | Divergence = "reverse_kl",
) -> TabularLM:
    """What :func:`mod` at level `sequence` draws from, by enumeration: exact, as a table again.

    Raises:
        ValueError: as :func:`mod`; or tables of other prompts or tokens.
    """
    asked = _asked(policies, weights, reference, betas, beta, divergence, "sequence")
    like, kinds = policies[0], {(p.prompts, p.tokens, p.laws.shape) for p in policies}
    if reference is not None:
        kinds |= {(reference.prompts, reference.tokens, reference.laws.shape)}
    if len(kinds) > 1:
        raise ValueError("tables of other prompts, tokens or lengths cannot be combined.")
    with np.errstate(divide="ignore"):
        laws = np.log(np.stack([policy.masses for policy in asked.policies]))
        base = np.zeros_like(laws[0]) if asked.reference is None else np.log(asked.reference.masses)
    masses = np.exp(asked.divergence.law(laws, base, np.array(asked.weights)))
    combined = TabularLM.from_masses(like, masses, "combined")
    return dataclasses.replace(combined, aligned=CombinedPolicy(*asked).aligned)


def _asked(
    policies: Sequence[Any],
    weights: Sequence[float],
    reference: Any,
    betas: Sequence[float] | None,
    beta: float | None,
    divergence: str | float | Divergence,
    level: Level,
) -> _Asked:
    """Checked; weights of f′ from those of the rewards."""
    wanted = divergence_of(divergence)
    effective = _effective(len(policies), weights, betas, beta)
    kept = [place for place, weight in enumerate(effective) if weight > 0]
    needs = not isinstance(wanted, ReverseKL)
    if level == "prefix":
        wanted.refuse_without_constant(effective)
        needs = isinstance(wanted, JensenShannon)
    # Where the exponents leave something over, the reference takes it, whatever the divergence.
    needs = needs or excess(effective) != 0
    if needs and reference is None:
        raise ValueError(
            f"no reference came, and {wanted.name} at level {level!r} with weights {effective} of "
            "the policies needs it as a member: give the policy they were aligned from."
        )
    chosen = tuple(policies[place] for place in kept)
    exponents = tuple(effective[place] for place in kept)
    return _Asked(chosen, exponents, reference if needs else None, wanted)


def _effective(
    count: int, weights: Sequence[float], betas: Sequence[float] | None, beta: float | None
) -> list[float]:
    """w_i·β_i/β."""
    own = [float(weight) for weight in weights]
    if not count or len(own) != count:
        raise ValueError(f"{len(own)} weights came for {count} policies; give one each.")
    if not all(math.isfinite(w) and w >= 0 for w in own) or not sum(own) > 0:
        raise ValueError(f"weights are {own}; they must be finite, ≥ 0 and not all 0.")
    if (betas is None) != (beta is None):
        raise ValueError(
            "betas and beta belong together: the KL coefficients the policies were trained at, "
            "and the one wanted. Give both, or neither where all are the same."
        )
    if betas is None or beta is None:
        if excess(own) != 0:
            raise ValueError(
                f"weights are {own} and sum to {sum(own):g}; without betas they must sum to 1. To "
                "go nearer to the reference or further away, give betas, beta and the reference."
            )
        return own
    if len(betas) != count:
        raise ValueError(f"{len(betas)} betas came for {count} policies; give one each.")
    for one in (*betas, beta):
        refuse_beta(one)
    return [weight * float(one) / beta for weight, one in zip(own, betas, strict=True)]


def _refuse_unlike(members: Sequence[Any]) -> None:
    """Policies that cannot write one response together."""
    for member in members:
        lacks = [
            n for n in ("stream", "vocabulary", "stop_ids", "response") if not hasattr(member, n)
        ]
        if lacks:
            raise TypeError(
                f"{getattr(member, 'name', member)} ({type(member).__name__}) does not show its "
                f"next-token laws (it has no {', '.join(lacks)}); policies can be combined only "
                "where it does. Use local models; a server tells no laws."
            )
    first = members[0]
    for other in members[1:]:
        if other.vocabulary != first.vocabulary:
            raise ValueError(
                f"{first.name} and {other.name} have different vocabularies: token ids mean "
                "different texts, so their laws cannot be combined token by token. Combine models "
                "of one family, with the same tokenizer."
            )
        if other.stop_ids != first.stop_ids or other.sampling != first.sampling:
            raise ValueError(
                f"{first.name} ({first.sampling}) and {other.name} ({other.sampling}) end or draw "
                "responses differently; give all the same sampling settings and stop tokens."
            )
