"""The same calibrated reward inside other engines: TRL, verl, OpenRLHF, Ray.

Importing this package loads nothing; each engine's module needs that engine alone.
"""
