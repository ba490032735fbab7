"""Things that answer prompts: exact tables, and causal language models with an adapter.

:class:`TabularPolicy` is the ground truth: finitely many responses, everything exact;
:class:`TabularLM` the same token by token, :class:`MaskedTable` site by site.
:class:`CausalLM` is a Hugging Face model; :class:`ChoiceLM` restricts one to answers of a single
token, where a real language model becomes enumerable too. :class:`MaskedLM`
fills gaps. :class:`OpenAIServer` asks a server and
:class:`VLLM` runs an engine in this process: both only sample. Importing this package loads no
torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infalign.policies.alignment import Alignment
    from infalign.policies.causal_lm import CausalLM
    from infalign.policies.choice_lm import ChoiceLM
    from infalign.policies.loading import LoRA
    from infalign.policies.masked_lm import MaskedLM
    from infalign.policies.masked_table import MaskedTable
    from infalign.policies.openai_server import OpenAIServer
    from infalign.policies.reference_view import ReferenceView
    from infalign.policies.scoring import Scores
    from infalign.policies.softmax_lm import SoftmaxLM
    from infalign.policies.softmax_table import SoftmaxTable
    from infalign.policies.tabular import TabularPolicy
    from infalign.policies.tabular_lm import TabularLM
    from infalign.policies.vllm import VLLM

__all__ = [
    "VLLM",
    "Alignment",
    "CausalLM",
    "ChoiceLM",
    "LoRA",
    "MaskedLM",
    "MaskedTable",
    "OpenAIServer",
    "ReferenceView",
    "Scores",
    "SoftmaxLM",
    "SoftmaxTable",
    "TabularLM",
    "TabularPolicy",
]

_ROOMS = {
    "Alignment": "alignment",
    "CausalLM": "causal_lm",
    "ChoiceLM": "choice_lm",
    "LoRA": "loading",
    "MaskedLM": "masked_lm",
    "MaskedTable": "masked_table",
    "OpenAIServer": "openai_server",
    "ReferenceView": "reference_view",
    "Scores": "scoring",
    "SoftmaxLM": "softmax_lm",
    "SoftmaxTable": "softmax_table",
    "TabularLM": "tabular_lm",
    "TabularPolicy": "tabular",
    "VLLM": "vllm",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        room = importlib.import_module(f"{__name__}.{_ROOMS[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("infalign"):
            raise
        raise ImportError(
            f"{name} needs the package {error.name!r}, which is not installed: "
            "pip install 'infalign[lm]'"
        ) from error
    return getattr(room, name)
