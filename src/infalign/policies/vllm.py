"""vLLM in this process, on the GPUs of one machine, as a sampler.

Prompts go in as the tokens a :class:`~infalign.policies.CausalLM` of the same model is conditioned
on, responses end at the tokens where its responses end, and log-probabilities are those of the
sampling law, after temperature: the law is that policy's, up to the rounding of other kernels. It
samples and cannot be trained; in training, TRL hands its weights to vLLM by itself.
"""

import functools
import hashlib
import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, final

import numpy as np

from infalign.policies.tokens import TextCodec, end_ids
from infalign.policies.trial import HOT, Trial, refuse_repeats
from infalign.protocols import Response, Sampling

__all__ = ["VLLM"]

_TRIED = 4
"""Prompts an engine is tried on, twice each."""


@final
class VLLM:
    """Samples from a model that vLLM runs; it is loaded when first asked.

    Args:
        model: a folder or a hub id.
        sampling: temperature, length cap, stop strings.
        codec: the tokenizer's conventions, as the local policy has them.
        tensor_parallel_size: GPUs the model is spread over. ≥ 1.
        gpu_memory_utilization: share of each GPU's memory it may take, in (0, 1]; leave room for a
            local policy on the same GPU.
        dtype: of the weights, in vLLM's words.
        max_model_len: context window; the model's by default.
        revision: branch, tag or commit on the hub.
        options: further arguments of `vllm.LLM`.
        name: what a figure's legend shows.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        model: str,
        sampling: Sampling,
        codec: TextCodec,
        *,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        dtype: str = "auto",
        max_model_len: int | None = None,
        revision: str | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if tensor_parallel_size < 1:
            raise ValueError(
                f"tensor_parallel_size is {tensor_parallel_size}; 1 or more is needed."
            )
        if not 0 < gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization is {gpu_memory_utilization}; it is a share of the GPU's "
                "memory and must lie in (0, 1]."
            )
        self.model, self.name = model, name or Path(model).name
        self._sampling, self._codec, self._window = sampling, codec, max_model_len
        self._revision, self._dtype = revision, dtype
        self._options = {
            "model": model,
            "tensor_parallel_size": tensor_parallel_size,
            "gpu_memory_utilization": gpu_memory_utilization,
            "dtype": dtype,
            "max_model_len": max_model_len,
            "revision": revision,
            # Log-probabilities of the law that samples; vLLM's default leaves temperature out.
            "logprobs_mode": "processed_logprobs",
            **(options or {}),
        }

    @classmethod
    def from_pretrained(cls, path: str | Path, sampling: Sampling, **options: Any) -> Self:
        """A model in a folder or on the hub, with its own tokenizer's conventions.

        Raises:
            ValueError: no tokenizer there.
        """
        from transformers import AutoTokenizer, GenerationConfig

        revision = options.get("revision") or "main"
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path), revision=revision)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no tokenizer could be loaded from {str(path)!r}: {error}. Give a folder with "
                "config.json, weights and tokenizer, or a model id your hub can serve."
            ) from error
        try:
            settings = GenerationConfig.from_pretrained(str(path), revision=revision)
        except OSError:  # a model need not have any
            settings = None
        ends = end_ids(SimpleNamespace(generation_config=settings), tokenizer)
        return cls(str(path), sampling, TextCodec(tokenizer, sampling.stop, ends), **options)

    @property
    def sampling(self) -> Sampling:
        """The sampling law's settings."""
        return self._sampling

    @property
    def gives_token_ids(self) -> bool:
        """Whether responses come with their tokens."""
        return True

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the weights where they lie in a folder, else of name and revision; and dtype."""
        weights = f"{self.model}@{self._revision or 'main'}"
        if Path(self.model).is_dir():
            from infalign.policies.loading import weights_hash

            weights = weights_hash(None, self.model)
        return hashlib.sha256(f"vllm {weights} {self._dtype}".encode()).hexdigest()

    @functools.cached_property
    def _engine(self) -> Any:
        return _vllm().LLM(**self._options)

    def sample(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator
    ) -> list[list[Response]]:
        """K independent responses to each of P prompts.

        The same `rng` gives the same seeds; vLLM's kernels may round otherwise when the batch is
        another one, so answers repeat exactly only where it is batch-invariant.

        Raises:
            ImportError: vLLM is not installed.
            ValueError: K < 1, a prompt that leaves no room in the context window, or an answer
                that this law cannot have produced.
        """
        return self._draw(prompts, k, rng, self._law)

    def _draw(
        self, prompts: Sequence[str], k: int, rng: np.random.Generator, law: Mapping[str, Any]
    ) -> list[list[Response]]:
        if k < 1:
            raise ValueError(f"k is {k}; at least one response per prompt must be asked for.")
        contexts = self._codec.contexts(prompts, self._sampling.max_new_tokens, self._window)
        seeds = rng.integers(2**31, size=len(prompts))
        outputs = self._engine.generate(
            [{"prompt_token_ids": list(context)} for context in contexts],
            [_vllm().SamplingParams(**law, n=k, seed=int(seed)) for seed in seeds],
            use_tqdm=False,
        )
        if [tuple(one.prompt_token_ids) for one in outputs] != contexts:
            raise ValueError(
                "vLLM answered other prompts than it was asked; its order is not ours."
            )
        return [
            [self._response(one) for one in sorted(output.outputs, key=lambda one: one.index)]
            for output in outputs
        ]

    def check(self, prompts: Sequence[str]) -> Trial:
        """Load the model and try it, so that long work does not fail late.

        Raises:
            ImportError: vLLM is not installed.
            ValueError: a prompt that leaves no room, or an engine that does not sample.
        """
        _vllm()
        self._codec.contexts(prompts, self._sampling.max_new_tokens, self._window)
        tried = list(prompts[:_TRIED])
        responses = self.sample(tried, 2, np.random.default_rng(0))
        hot = self._draw(tried, 2, np.random.default_rng(1), self._law | {"temperature": HOT})
        refuse_repeats("vLLM", tried, [[one.token_ids for one in row] for row in hot])
        reported = np.array([[response.log_prob for response in row] for row in responses])
        return Trial(tuple(tried), responses, reported, self._sampling.temperature)

    @property
    def _law(self) -> dict[str, Any]:
        """What `SamplingParams` is told: the whole vocabulary, and our ends instead of its own."""
        return {
            "temperature": self._sampling.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "max_tokens": self._sampling.max_new_tokens,
            "stop_token_ids": sorted(self._codec.stop_ids),
            "ignore_eos": True,  # end-of-sequence is among the stop ids; no further ends are added
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        }

    def _response(self, output: Any) -> Response:
        ids = tuple(output.token_ids)
        steps = output.logprobs or []
        if len(steps) != len(ids):
            raise ValueError(f"vLLM gave {len(steps)} log-probabilities for {len(ids)} tokens.")
        log_prob = math.fsum(step[i].logprob for step, i in zip(steps, ids, strict=True))
        response = self._codec.response(ids, log_prob)
        self._codec.check(response, self._sampling.max_new_tokens, f"of vLLM's {self.name}")
        return response


def _vllm() -> Any:
    """The package, imported when first needed: that alone takes seconds.

    Whoever drew all with it does without it, as in the environment where training goes on.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ImportError(
            "sampling with vLLM in this process needs the package 'vllm', which is not "
            "installed: pip install 'infalign[vllm]' (Linux with a GPU)"
        )
    return importlib.import_module("vllm")
