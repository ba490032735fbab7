"""Claim 4: what calibration does against a reward that can be gamed."""
