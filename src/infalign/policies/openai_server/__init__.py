"""Servers that speak OpenAI's protocol, as a sampler: vLLM, SGLang, llama.cpp, transformers serve.

The law is the house's: one temperature, the whole vocabulary, an end at end-of-sequence, a stop
string or the length cap. What a server must be told for that differs, see :mod:`.dialects`. A set
of responses is returned complete or not at all: each answer is checked, faults are tried again
(:mod:`.asking`), and what cannot be had is refused with the address and what came.
"""

from infalign.policies.openai_server.connection import Connection
from infalign.policies.openai_server.dialects import DIALECTS, Dialect, ServerKind
from infalign.policies.openai_server.server import OpenAIServer

__all__ = ["DIALECTS", "Connection", "Dialect", "OpenAIServer", "ServerKind"]
