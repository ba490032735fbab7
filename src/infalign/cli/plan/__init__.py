"""`infalign plan`: what will be won, at which price, before anything is trained.

`verb` is the command and chooses the question, `asked` reads procedures, transforms and files,
`questions` answers one question each, `shown` makes tables of the answers.
"""

from infalign.cli.plan.verb import plan

__all__ = ["plan"]
