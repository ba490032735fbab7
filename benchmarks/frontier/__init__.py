"""Claim 1: at equal KL the optimal transform wins most after decoding."""
