"""Claim 6: calibration alone is a strong method for the ordinary win rate."""
