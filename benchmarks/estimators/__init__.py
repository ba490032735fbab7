"""Estimators of what decoding wins: bias, variance, coverage, speed."""
