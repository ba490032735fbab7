"""Votes: answer what most samples say, or what agrees with them most.

`choosing` decides among weighted answers wherever they come from; `extracting` says what an answer
says, `utilities` how far two agree. The rest are procedures on samples.
"""

from infalign.decoding.voting.bayes_risk import MinimumBayesRisk
from infalign.decoding.voting.choosing import bayes_risk, vote
from infalign.decoding.voting.extracting import (
    EXTRACT_NAMES,
    Extract,
    LastMatch,
    boxed,
    extract_from_name,
    last_number,
)
from infalign.decoding.voting.majority import MajorityVote
from infalign.decoding.voting.utilities import (
    UTILITY_NAMES,
    Bleu,
    Chrf,
    ExactMatch,
    Pairwise,
    Rouge,
    Utility,
    utility_from_name,
)
from infalign.decoding.voting.weighted import WeightedVote, tilt_weights

__all__ = [
    "EXTRACT_NAMES",
    "UTILITY_NAMES",
    "Bleu",
    "Chrf",
    "ExactMatch",
    "Extract",
    "LastMatch",
    "MajorityVote",
    "MinimumBayesRisk",
    "Pairwise",
    "Rouge",
    "Utility",
    "WeightedVote",
    "bayes_risk",
    "boxed",
    "extract_from_name",
    "last_number",
    "tilt_weights",
    "utility_from_name",
    "vote",
]
