"""Running a procedure on text, and what it cost.

The same procedure object that predicts a win rate on [0,1] picks here among sampled texts; what
needs to look inside a response is a :class:`TextProcedure`.
"""

from infalign.decoding.blockwise import BlockwiseBestOfN
from infalign.decoding.combining import combine_tables, mod
from infalign.decoding.decode import decode, decode_stored, on_text
from infalign.decoding.mcmc import MCMC, qalign
from infalign.decoding.names import text_procedure_from_name
from infalign.decoding.search import BlockSearch, TreeSearch, controlled
from infalign.decoding.selection import Selection
from infalign.decoding.text_procedure import (
    Budget,
    Decoded,
    Draw,
    Ranks,
    Score,
    Scored,
    Steps,
    TextProcedure,
    budget_of,
)
from infalign.decoding.voting import MajorityVote, MinimumBayesRisk, WeightedVote

__all__ = [
    "MCMC",
    "BlockSearch",
    "BlockwiseBestOfN",
    "Budget",
    "Decoded",
    "Draw",
    "MajorityVote",
    "MinimumBayesRisk",
    "Ranks",
    "Score",
    "Scored",
    "Selection",
    "Steps",
    "TextProcedure",
    "TreeSearch",
    "WeightedVote",
    "budget_of",
    "combine_tables",
    "controlled",
    "decode",
    "decode_stored",
    "mod",
    "on_text",
    "qalign",
    "text_procedure_from_name",
]
