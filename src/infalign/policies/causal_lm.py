"""A Hugging Face causal language model as a policy: samples, and exact log-probabilities.

The law is the full vocabulary at one temperature, without top-k or top-p, so that what is sampled
and what is scored are the same distribution. The body runs in bfloat16 where that pays, the head in
float32, and only at positions that predict a response. Training goes through a LoRA adapter; the
reference is the same model with the adapter switched off, so one copy of the weights serves both.

On a busy machine set ``OMP_WAIT_POLICY=passive`` (idle threads then sleep instead of spinning) and
`threads` to the number of free physical cores.
"""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float

from infalign.policies import loading
from infalign.policies.continuing import Writer
from infalign.policies.loading import DType, LoRA
from infalign.policies.scoring import (
    Scores,
    check_shape,
    checked_starts,
    hidden_states,
    in_chunks,
    masks_work,
    path_scores,
)
from infalign.policies.token_tree import PackedRows, pack
from infalign.policies.tokens import TextCodec, end_ids
from infalign.protocols import Response, Sampling

__all__ = ["CausalLM", "Scores"]

Responses = Sequence[Sequence[Response]]
Starts = Sequence[Sequence[int]] | None


class CausalLM(Writer):
    """A causal language model that answers prompts and can be trained through an adapter.

    Args:
        model: a Hugging Face causal LM in memory; :meth:`from_pretrained` loads one.
        tokenizer: its tokenizer.
        sampling: temperature, length cap, stop strings: part of the law.
        lora: adds an adapter to train; None leaves a policy that can only be used.
        dtype: of the body; `auto` picks the faster of bfloat16 and float32.
        threads: torch's thread count for the whole process; None leaves it.
        rows: sequences sampled side by side; a finished one makes room for the next.
        row_tokens: nodes of one packed row, see `token_tree`.
        name: what a figure's legend shows.
        source: the folder or model id of the weights, for the fingerprint.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sampling: Sampling,
        *,
        lora: LoRA | None = None,
        dtype: DType = "auto",
        threads: int | None = None,
        rows: int = 128,
        row_tokens: int = 512,
        name: str = "causal-lm",
        source: str | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.name = name
        self.tokenizer = tokenizer
        self._sampling = sampling
        self._rows, self.row_tokens = rows, row_tokens
        self.head = loading.head_of(model)
        self._source = source
        device = next(model.parameters()).device
        chosen = loading.fastest_dtype(device.type) if dtype == "auto" else getattr(torch, dtype)
        model.to(chosen).requires_grad_(False)
        loading.choose_attention(model)
        self.body = model.get_decoder()
        self.module: torch.nn.Module = model if lora is None else loading.attach(model, lora)
        self.module.eval()
        self._has_adapter = lora is not None
        self._reference_depth = 0
        self._weights_hash: str | None = None
        self._packs: bool | None = None
        self.codec = TextCodec(tokenizer, sampling.stop, end_ids(model, tokenizer))

    @classmethod
    def from_pretrained(
        cls, path: str | Path, sampling: Sampling, *, device: str | None = None, **options: Any
    ) -> Self:
        """Load from a local folder or a model id; `options` are those of the constructor.

        Raises:
            ValueError: nothing loadable there.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = loading.load(str(path), device)
        options = {"name": Path(path).name, "source": str(path)} | options
        return cls(model, tokenizer, sampling, **options)

    @property
    def source(self) -> str | None:
        """Folder (absolute) or model id of the weights; None where they were given in memory."""
        path = Path(self._source or "")
        return str(path.resolve()) if self._source and path.exists() else self._source

    @property
    def sampling(self) -> Sampling:
        """The sampling law's settings."""
        return self._sampling

    def with_sampling(self, sampling: Sampling) -> Self:
        """The same weights (shared, not copied) under another sampling law."""
        other = copy.copy(self)
        other._sampling, other._kept = sampling, None
        other.codec = TextCodec(self.tokenizer, sampling.stop, end_ids(self._model, self.tokenizer))
        return other

    @property
    def fingerprint(self) -> str:
        """Hash of weights, tokenizer, body dtype and, once it has moved, the adapter."""
        if self._weights_hash is None:
            self._weights_hash = loading.weights_hash(self.module, self._source)
        dtype = str(self.body.dtype).removeprefix("torch.")
        adapter = "" if self._on_reference else loading.adapter_hash(self.module)
        return "-".join(filter(None, (self._weights_hash, dtype, adapter)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @contextlib.contextmanager
    def reference(self) -> Iterator[Self]:
        """Within the block this object *is* the reference policy: the adapter is switched off."""
        # Once only: leaving an inner block would switch the adapter on within the outer one.
        outermost = self._has_adapter and not self._on_reference
        off = self._wrapped.disable_adapter() if outermost else contextlib.nullcontext()
        self._reference_depth += 1
        try:
            with off:
                yield self
        finally:
            self._reference_depth -= 1

    def render_chat(self, messages: Sequence[dict[str, str]]) -> str:
        """Chat messages as this model's prompt text, ready for the assistant's turn.

        Raises:
            ValueError: the tokenizer has no chat template.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                f"{self.name} has no chat template, so chat messages cannot be rendered. Use an "
                "instruction-tuned model, or prompts of plain text."
            )
        return self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )

    def differentiable_log_prob(
        self, prompts: Sequence[str], responses: Responses, starts: Starts = None
    ) -> Float[torch.Tensor, "P K"]:
        """log π(y|x) with gradient to the adapter. Nats, float64.

        Beginnings shared by the responses of a prompt, and by prompts, are computed once.

        Args:
            prompts: P.
            responses: P lists of K.
            starts: "P K", 0 to |y|: log π(y_≥start | x, y_<start) instead, for responses that
                begin with what something else wrote. None: 0.

        Raises:
            ValueError: a response this sampling law cannot produce, or a start outside one.
        """
        return self._score(prompts, responses, starts, with_reference=False).log_prob

    def differentiable_scores(self, prompts: Sequence[str], responses: Responses) -> Scores:
        """log π, log π_ref and the Rao–Blackwellised KL in one go; the reference pass is extra."""
        return self._score(prompts, responses, with_reference=True)

    def log_prob(self, prompts: Sequence[str], responses: Responses) -> Float[np.ndarray, "P K"]:
        """log π(y|x) under the sampling law, end-of-sequence included. Nats."""
        score = functools.partial(self._score, with_reference=False)
        return in_chunks(score, prompts, responses).log_prob.numpy()

    def reference_log_prob(
        self, prompts: Sequence[str], responses: Responses
    ) -> Float[np.ndarray, "P K"]:
        """log π_ref(y|x): the adapter switched off. Nats."""
        with self.reference():
            return self.log_prob(prompts, responses)

    def scores(self, prompts: Sequence[str], responses: Responses) -> Scores:
        """log π, log π_ref and the Rao–Blackwellised KL, without gradient, in slices."""
        return in_chunks(self.differentiable_scores, prompts, responses)

    def divergence(self, prompts: Sequence[str], responses: Responses) -> Float[np.ndarray, "P K"]:
        """Σ_t KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t)) of each response. Nats.

        Its mean over y ~ π is KL(π‖π_ref), as is that of the log-ratio, with less variance: the
        expectation over each next token is exact.
        """
        return self.scores(prompts, responses).kl.numpy()

    def save_adapter(self, folder: str | Path) -> None:
        """Write the adapter in peft's format."""
        self._require_adapter()
        self._wrapped.save_pretrained(str(folder), save_embedding_layers=False)

    def load_adapter(self, folder: str | Path) -> None:
        """Read an adapter of the same shape back in place.

        Raises:
            ValueError: this policy has none, or the stored one does not fit.
        """
        self._require_adapter()
        loading.load_adapter(self.module, Path(folder))

    def weights(self) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        """Opens blocks within which the body is, at the least cost, policy or reference, as now."""
        return self.reference if self._on_reference else self._idle_adapter_off

    def _idle_adapter_off(self) -> contextlib.AbstractContextManager[Any]:
        """An adapter that does nothing yet would cost a fifth of the time of sampling."""
        if not self._has_adapter or self._on_reference or not loading.is_idle(self.module):
            return contextlib.nullcontext()
        return self._wrapped.disable_adapter()

    @property
    def _model(self) -> Any:
        return self._wrapped.get_base_model() if self._has_adapter else self.module

    @property
    def _wrapped(self) -> Any:
        """The peft model, whose methods torch's module type does not know."""
        return self.module

    @property
    def _on_reference(self) -> bool:
        return self._reference_depth > 0

    def _require_adapter(self) -> None:
        if not self._has_adapter:
            raise ValueError(f"{self.name} has no adapter; make it with lora=LoRA(...).")

    def contexts(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each prompt, checked to leave room for a response.

        Raises:
            ValueError: a prompt that does not, named by its index.
        """
        window = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return self.codec.contexts(prompts, self.sampling.max_new_tokens, window)

    def pack(
        self,
        contexts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        starts: Sequence[int] | None = None,
    ) -> PackedRows:
        """Token sequences in few rows, beginnings shared where this architecture allows it."""
        if self._packs is None:
            self._packs = masks_work(self.body, self.device)
        longest = max(map(len, contexts)) + max(map(len, responses))
        share = self._packs and longest <= loading.attention_window(self._model)
        return pack(contexts, responses, self.row_tokens, share, starts)

    def _score(
        self,
        prompts: Sequence[str],
        responses: Responses,
        starts: Starts = None,
        *,
        with_reference: bool,
    ) -> Scores:
        shape = check_shape(prompts, responses)
        contexts = self.contexts(prompts)
        ids = self.codec.checked(responses, self.sampling.max_new_tokens)
        repeated = [context for context in contexts for _ in range(shape[1])]
        from_ = None if starts is None else checked_starts(starts, responses)
        packed = self.pack(repeated, ids, from_)
        hidden = hidden_states(self.body, packed, self.device)
        other = None
        if with_reference:
            with torch.no_grad(), self.reference():
                other = hidden_states(self.body, packed, self.device)
        temperature = self.sampling.temperature
        scores = path_scores(hidden, other, packed, self.head, temperature, len(ids))
        return Scores(*(score.unflatten(0, shape) for score in scores))
