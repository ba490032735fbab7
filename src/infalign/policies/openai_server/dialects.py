"""What each kind of server must be told so that it samples from the whole vocabulary.

Left alone, most do not: vLLM and SGLang take `top_k`, `top_p` and penalties from the model's
`generation_config.json`, llama.cpp keeps the 40 likeliest tokens and cuts rare ones, `transformers
serve` decodes greedily. Such a law is another policy than the one whose log-probabilities train.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["DIALECTS", "Dialect", "LogProbs", "ServerKind"]

ServerKind = Literal["vllm", "sglang", "llama_cpp", "transformers", "openai"]
LogProbs = Literal["none", "model", "sampling"]


@dataclasses.dataclass(frozen=True)
class Dialect:
    """One kind of server."""

    whole_vocabulary: Mapping[str, Any]
    """Fields beside OpenAI's own that switch off whatever narrows the law."""
    token_ids: bool = False
    """Takes prompts and stops as token ids and gives the sampled ones back."""
    several: bool = True
    """Draws several responses (`n`) in one request."""
    log_probs: LogProbs = "model"
    """Law of the log-probabilities it gives unless it was started otherwise: `model`, before
    temperature; `sampling`, after; `none`: it gives none."""
    serial: bool = False
    """Seeds hold only for one request at a time on each server."""


_NO_CUTS = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_SAMPLE = {"do_sample": True, "top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0}

DIALECTS: dict[str, Dialect] = {
    "vllm": Dialect(_NO_CUTS, token_ids=True),
    # After temperature, unless it was started with SGLANG_RETURN_ORIGINAL_LOGPROB.
    "sglang": Dialect(_NO_CUTS, token_ids=True, log_probs="sampling"),
    # Only this sampler runs: no top-k, top-p, min-p, penalties or whatever a later build adds.
    "llama_cpp": Dialect({"samplers": ["temperature"]}, several=False),
    # It refuses fields it does not know, reads these from one JSON string, ignores `n`, and seeds
    # one generator for the whole process.
    "transformers": Dialect(
        {"generation_config": json.dumps(_SAMPLE)}, several=False, log_probs="none", serial=True
    ),
    "openai": Dialect({}),
}
"""Kind of server → what it is told. `openai` is any other: nothing beyond OpenAI's own fields."""
