"""Arithmetic on [0,1]: numpy and scipy only, never sees a token.

Calibrate rewards to quantiles, and transforms, aligned policies, inference-time procedures and
win rates are all functions on the unit interval.
"""
