"""Solvers of the optimality condition: which law wins most at a KL or a β.

`similarity` and `power_law` for best-of-N and worst-of-N; `shooting` and `collocation` for any two
rank procedures; `objective`, `newton` and `variational` for everything else. What they hand over is
`stationary`, and what becomes of it a `law_transform`.
"""
