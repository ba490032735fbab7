"""Win rate and KL from samples, with errors clustered by prompt.

A number per prompt first, from that prompt's samples (`win_rate_samples`, `kl_from_…`); then one
`estimate` over prompts, or a `paired_difference` between policies. What ranks cannot express is
decoded first and compared then (`decoded_answers`, `decoded_win_rate`). `ideal_table` judges what
exact alignment of the stored rollouts would win, before anything is trained.

Never evaluate with the samples that calibrated or trained.
"""

from infalign.evaluation.decoded import (
    Answers,
    answer_repeatedly,
    answers_from_samples,
    decoded_answers,
    decoded_win_rate,
)
from infalign.evaluation.estimates import (
    Estimate,
    estimate,
    kl_from_divergences,
    kl_from_log_probs,
    paired_difference,
)
from infalign.evaluation.ideal import Ideal, ideal_table
from infalign.evaluation.win_rates import (
    compare,
    fraction_of_limit,
    picks,
    rewards_every_n,
    win_rate_samples,
    win_rates_every_n,
)

__all__ = [
    "Answers",
    "Estimate",
    "Ideal",
    "answer_repeatedly",
    "answers_from_samples",
    "compare",
    "decoded_answers",
    "decoded_win_rate",
    "estimate",
    "fraction_of_limit",
    "ideal_table",
    "kl_from_divergences",
    "kl_from_log_probs",
    "paired_difference",
    "picks",
    "rewards_every_n",
    "win_rate_samples",
    "win_rates_every_n",
]
