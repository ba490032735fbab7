"""What a causal language model writes: whole responses, ends of responses, or token by token.

The law of a response's end is the law of the response, given its beginning: the same body, head and
temperature, and the cap on the whole. Each response's uniform numbers are its own, so that an empty
beginning gives what sampling gives, to the token.
"""

import abc
import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from infalign.policies.alignment import Alignment
from infalign.policies.causal_stream import CausalStream
from infalign.policies.counts import refuse_draw
from infalign.policies.generation import generate_in_batches
from infalign.policies.kept import KeptBeginnings
from infalign.policies.next_token import Head
from infalign.policies.reuse import generate_from_kept
from infalign.policies.tokens import TextCodec
from infalign.protocols import Response, Sampling

__all__ = ["Writer"]

Version = tuple[tuple[int, int, float], ...]
"""Of an adapter's tensors: where each is, how often it was written to, its first entry; else ()."""


class Writer(abc.ABC):
    """The writing half of :class:`.CausalLM`; that brings the weights."""

    name: str
    body: Any
    head: Head
    codec: TextCodec
    module: torch.nn.Module
    _rows: int
    _kept: dict[Version, KeptBeginnings] | None = None
    _aligned: Alignment | None = None

    @property
    def aligned(self) -> Alignment | None:
        """What the adapter was trained on; None as the reference, and where nobody has said."""
        return None if self._on_reference else self._aligned

    @aligned.setter
    def aligned(self, alignment: Alignment | None) -> None:
        self._aligned = alignment

    @property
    @abc.abstractmethod
    def sampling(self) -> Sampling:
        """The sampling law's settings."""

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    @abc.abstractmethod
    def _on_reference(self) -> bool: ...

    @abc.abstractmethod
    def contexts(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each prompt, checked to leave room for a response."""

    @abc.abstractmethod
    def weights(self) -> Callable[[], contextlib.AbstractContextManager[Any]]:
        """Opens blocks within which the body is, at the least cost, policy or reference, as now."""

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts.

        Raises:
            ValueError: K < 1, or a prompt that leaves no room in the context window.
        """
        return self.continue_from(prompts, [()] * len(prompts), k, rng)

    def continue_from(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[Sequence[int]],
        k: int,
        rng: np.random.Generator,
        *,
        limit: int | None = None,
    ) -> list[list[Response]]:
        """K independent responses that begin so, to each of M pairs of a prompt and a beginning.

        Args:
            prompts: M.
            beginnings: M sequences of token ids, of responses that have not ended.
            k: responses drawn for each. ≥ 1.
            rng: of the draws; with empty beginnings and no limit they are those of :meth:`sample`.
            limit: new tokens at most, ≥ 1; what it cuts has the finish reason `limit`. None: none.

        Returns:
            Whole responses, the beginning included; their `log_prob` is that of the new tokens.

        Raises:
            ValueError: K or limit < 1; a prompt that leaves no room in the context window; a
                beginning that has ended, fills the length cap, or has ids this model has not.
        """
        refuse_draw(k, limit)
        contexts = self.contexts(prompts)
        begun = self._begun(prompts, beginnings)
        longest = self.sampling.max_new_tokens
        caps = [min(longest - len(one), limit or longest) for one in begun]
        uniforms = rng.random((len(prompts), k, longest))[:, :, : max(caps, default=longest)]
        read = [(*context, *one) for context, one in zip(contexts, begun, strict=True)]
        answers = self._write(read, np.ascontiguousarray(uniforms), caps)
        return [
            [self.response((*one, *ids), nats) for ids, nats in row]
            for one, row in zip(begun, answers, strict=True)
        ]

    def stream(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]] | None = None
    ) -> CausalStream:
        """Start writing a response to each of R prompts, after its beginning if there is one.

        The stream keeps to the weights of now: within :meth:`.CausalLM.reference`, the reference's.

        Raises:
            ValueError: no prompt, one that leaves no room in the context window, or a beginning
                that has ended, fills the length cap, or has ids this model has not.
        """
        if not prompts:
            raise ValueError("no prompt came; a stream needs at least one.")
        contexts = self.contexts(prompts)
        begun = self._begun(prompts, beginnings or [()] * len(prompts))
        read = [(*context, *one) for context, one in zip(contexts, begun, strict=True)]
        longest = max(map(len, contexts)) + self.sampling.max_new_tokens
        law = (self.head, self.sampling.temperature)
        return CausalStream(self.body, *law, read, longest, self.weights())

    @contextlib.contextmanager
    def keeping_beginnings(self, most_bytes: int | None = None) -> Iterator[None]:
        """Within the block, what was written is gone on from without being read again.

        Keys and values of everything sampled are kept, those not asked for longest making room. The
        answers are the same up to rounding. It may be entered again within itself. Where the
        architecture's cache cannot be taken apart (sliding windows), nothing is kept. An adapter
        may be trained or loaded meanwhile: what it read before is forgotten.

        Args:
            most_bytes: memory for them, on the model's device. By default 2 GiB on a CPU, and a
                quarter of what is free on a GPU. On top come the rows being written, and a portion
                of prompts as they are read (about 2,000 tokens).
        """
        outermost = self._kept is None
        if outermost:
            self._kept = {}
            self._most_bytes = _memory(self.device) if most_bytes is None else most_bytes
        try:
            yield
        finally:
            if outermost:
                self._kept = None

    @functools.cached_property
    def vocabulary(self) -> str:
        """Hash of the text of each token id, and of how many there are."""
        tokens = sorted((i, token) for token, i in self.codec.tokenizer.get_vocab().items())
        return hashlib.sha256(repr((len(self.head.weight), tokens)).encode()).hexdigest()

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a response: end-of-sequence, and those containing a stop string."""
        return self.codec.stop_ids

    def response(self, token_ids: Sequence[int], log_prob: float) -> Response:
        """A response from its tokens, the terminating one included; else it is a beginning."""
        return self.codec.response(token_ids, log_prob, self.sampling.max_new_tokens)

    def _write(
        self, read: Sequence[tuple[int, ...]], uniforms: np.ndarray, caps: Sequence[int]
    ) -> list[list[tuple[list[int], float]]]:
        is_stop = torch.zeros(len(self.head.weight), dtype=torch.bool)
        is_stop[sorted(self.stop_ids)] = True
        model = (self.body, self.head)
        law = (self.sampling.temperature, is_stop.to(self.device))
        with torch.no_grad(), self.weights()():
            if self._kept is not None:
                sampled = (*model, read, uniforms, *law, self._rows, caps)
                found = generate_from_kept(self._beginnings(self._kept), *sampled)
                if found is not None:
                    return found
            return generate_in_batches(*model, read, uniforms, *law, self._rows, caps)

    def _beginnings(self, kept: dict[Version, KeptBeginnings]) -> KeptBeginnings:
        """Those read with the weights of now; what an adapter read before it moved is forgotten."""
        weights = () if self._on_reference else _version(self.module)
        for other in kept.keys() - {(), weights}:
            del kept[other]
        return kept.setdefault(weights, KeptBeginnings(self._most_bytes))

    def _begun(
        self, prompts: Sequence[str], beginnings: Sequence[Sequence[int]]
    ) -> list[tuple[int, ...]]:
        """The beginnings, each checked to be one that can be gone on from."""
        begun = self.codec.beginnings(prompts, beginnings, self.sampling.max_new_tokens)
        known = range(len(self.head.weight))
        for place, one in enumerate(begun):
            if not all(token in known for token in one):
                raise ValueError(
                    f"beginning {place} has token ids up to {max(one)}; {self.name} knows those "
                    f"below {len(known)}. Give tokens of this model's own responses."
                )
        return begun


def _version(module: torch.nn.Module) -> Version:
    """Changes whenever the adapter is trained or loaded; a hash of it would be dear at each step.

    Fused optimizers and writes through `.data` are not counted by torch, but move every entry.
    """
    tensors = (tensor for name, tensor in module.named_parameters() if "lora_" in name)
    return tuple((t.data_ptr(), _writes(t), float(t.detach().flatten()[0])) for t in tensors)


def _writes(tensor: torch.Tensor) -> int:
    # What was made in inference mode has no counter, and outside it cannot be written to.
    return 0 if tensor.is_inference() else tensor._version


def _memory(device: torch.device) -> int:
    """Bytes to keep beginnings in, unless told otherwise."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return 2 * 2**30
