"""What a row of the training log says: exact where the law is known, estimated where it is sampled.

`gap` is KL(π‖π*), how many nats the policy is from the optimum of its own objective. It needs no
knowledge of π*: E_π[Φ]/β − KL(π‖π_ref) = log Z − KL(π‖π*), and log Z is known.
"""

import numpy as np
from jaxtyping import Float

from infalign.quantile.procedures import RankProcedure
from infalign.quantile.subsets import average_over_ties, subset_weights
from infalign.quantile.win_rate import atomic_win_rate
from infalign.training.rewards import Scored
from infalign.training.solver import Problem, Row, TrainablePolicy

__all__ = ["law_row", "measured_row", "sample_row", "watched_win_rate"]


def law_row(
    law: Float[np.ndarray, "P C"],
    reference: Float[np.ndarray, "P C"],
    scored: Scored,
    batch: Problem,
) -> Row:
    """Means over prompts of exact sums over a policy's law."""
    possible = reference > 0
    ratio = np.where(possible & (law > 0), law / np.where(possible, reference, 1.0), 1.0)
    kl = (law * np.log(ratio)).sum(1)
    phi = scored.training_rewards / batch.beta
    top = phi.max(1, keepdims=True)
    log_partition = top[:, 0] + np.log((reference * np.exp(phi - top)).sum(1))
    row = {
        "kl": float(kl.mean()),
        "training_reward": float((law * scored.training_rewards).sum(1).mean()),
        "reward": float((law * scored.rewards).sum(1).mean()),
        "gap": float((log_partition + kl - (law * phi).sum(1)).mean()),
    }
    if scored.quantiles is not None:
        row["quantile"] = float((law * scored.quantiles).sum(1).mean())
    if batch.procedure is not None:
        win = atomic_win_rate(law, reference, scored.rewards, batch.procedure)
        row["win_rate"] = float(win.mean())
    return row


def measured_row(policy: TrainablePolicy, batch: Problem, k: int, rng: np.random.Generator) -> Row:
    """:func:`sample_row` of K fresh samples of the policy to each prompt; leaves no gradient."""
    import torch

    responses = policy.sample(batch.texts, k, rng)
    with torch.no_grad():
        log_prob = policy.differentiable_log_prob(batch.texts, responses).double().cpu().numpy()
    log_ratio = log_prob - policy.reference_log_prob(batch.texts, responses)
    texts = [[response.text for response in row] for row in responses]
    return sample_row(log_ratio, batch.rewards.score(batch.ids, batch.texts, texts), batch)


def sample_row(log_ratio: Float[np.ndarray, "P K"], scored: Scored, batch: Problem) -> Row:
    """The same from K samples of the policy to each prompt; `kl` is the k1 estimate.

    `win_rate` weighs the reference's law of decoded quantiles by how often each sample is picked;
    it inherits the calibration's finite-K error and is for watching, not for claims.
    """
    phi = scored.training_rewards / batch.beta
    log_partition = batch.rewards.log_partition(batch.beta, batch.ids)
    row = {
        "kl": float(log_ratio.mean()),
        "kl_se": _standard_error(log_ratio.mean(1)),
        "training_reward": float(scored.training_rewards.mean()),
        "reward": float(scored.rewards.mean()),
        "gap": float((log_partition - (phi - log_ratio).mean(1)).mean()),
    }
    if scored.quantiles is not None:
        row["quantile"] = float(scored.quantiles.mean())
        row |= watched_win_rate(scored.rewards, scored.quantiles, batch.procedure)
    return row


def watched_win_rate(
    rewards: Float[np.ndarray, "P K"],
    quantiles: Float[np.ndarray, "P K"],
    procedure: RankProcedure | None,
) -> Row:
    """`win_rate` of :func:`sample_row`; nothing where K is below the procedure's candidates."""
    if procedure is None or procedure.candidates > quantiles.shape[1]:
        return {}
    sorted_weights = subset_weights(quantiles.shape[1], procedure.rank_probabilities)
    picked = average_over_ties(rewards, sorted_weights)
    return {"win_rate": float((picked * procedure.rank_cdf(quantiles)).sum(1).mean())}


def _standard_error(per_prompt: Float[np.ndarray, "P"]) -> float:
    if len(per_prompt) < 2:
        return float("nan")
    return float(per_prompt.std(ddof=1) / np.sqrt(len(per_prompt)))
