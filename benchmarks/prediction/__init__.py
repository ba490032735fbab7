"""Claim: the measured win rate lies on the predicted curve, or what keeps it off is known."""
