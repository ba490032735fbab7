"""Where methods meet: the same store, prompts, adapter and steps for all, compared at equal KL.

A world (:mod:`.world`) lists every response to every prompt, with the reference's law and the
rewards of several judges; a method (:mod:`benchmarks.methods`) is a loss on it. :mod:`.training`
moves a policy by that loss, :mod:`.runs` keeps the law it ends at, :mod:`.measuring` brings laws to
a common KL and says what they win, :mod:`.results` writes what was found.
"""
