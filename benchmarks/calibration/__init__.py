"""Calibration on real judge scores: uniform, how many rollouts, plain or posterior mean."""
