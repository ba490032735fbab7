"""`infalign plan`: what will be won, at which price, before anything is trained.

`verb` is the command and chooses the question, `asked` reads procedures, transforms and files,
`given` both for all questions; a file each answers one, and `shown` shows it.
"""

from infalign.cli.plan.verb import plan

__all__ = ["plan"]
