"""Finitely many responses: any procedure at all, as a function of the masses of a policy.

`decoding` turns the procedures on [0,1] into such functions, `voting` is one that ranks cannot
express, `differentiating` gives slopes of any, and `mirror` finds the optimal policy.
"""
