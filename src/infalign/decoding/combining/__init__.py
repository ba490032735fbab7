"""Policies made of policies: weights chosen at decoding time, nothing trained."""

from infalign.decoding.combining.divergence import Divergence
from infalign.decoding.combining.divergences import Alpha, JensenShannon, ReverseKL
from infalign.decoding.combining.mod import combine_tables, mod
from infalign.decoding.combining.naming import divergence_of
from infalign.decoding.combining.sequence_level import SequencePolicy
from infalign.decoding.combining.token_level import CombinedPolicy, CombinedStream

__all__ = [
    "Alpha",
    "CombinedPolicy",
    "CombinedStream",
    "Divergence",
    "JensenShannon",
    "ReverseKL",
    "SequencePolicy",
    "combine_tables",
    "divergence_of",
    "mod",
]
