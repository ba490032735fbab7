"""Running a procedure on text, and what it cost.

The same procedure object that predicts a win rate on [0,1] picks here among sampled texts.
"""

from infalign.decoding.decode import Budget, Decoded, budget_of, decode, decode_stored

__all__ = ["Budget", "Decoded", "budget_of", "decode", "decode_stored"]
