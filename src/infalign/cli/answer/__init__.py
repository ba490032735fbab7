"""Verbs that answer by a procedure: `decode` a file of prompts, or `chat`."""

from infalign.cli.answer.chat import chat
from infalign.cli.answer.decode import decode

__all__ = ["chat", "decode"]
