"""Votes: answer what most samples say, or what agrees with them most."""

from infalign.decoding.voting.choosing import bayes_risk, vote
from infalign.decoding.voting.utilities import ExactMatch, Pairwise, Utility

__all__ = ["ExactMatch", "Pairwise", "Utility", "bayes_risk", "vote"]
