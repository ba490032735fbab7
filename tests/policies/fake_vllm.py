"""A stand-in for vLLM where no GPU is: its public calls, by their real names, over a tiny policy.

What it checks: the arguments of `LLM` and `SamplingParams` exist and have the right kind, prompts
are token ids, one set of parameters a prompt; `logprobs_mode` is honoured, as are `n`, `seed` and
the law; outputs have the fields of `RequestOutput` and `CompletionOutput`. What it cannot: kernels,
memory, several GPUs, and whether a later vLLM changes any of this.
"""

import dataclasses
import importlib.machinery
import types

import numpy as np


@dataclasses.dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False

    def __post_init__(self):
        assert self.n >= 1
        assert 0 < self.top_p <= 1
        assert self.top_k >= -1
        assert isinstance(self.seed, int), "every request needs a seed"
        assert all(isinstance(i, int) for i in self.stop_token_ids)


@dataclasses.dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclasses.dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclasses.dataclass
class RequestOutput:
    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool


def fake_vllm(policy, loaded, change=None):
    """A module `vllm` whose models all answer as `policy`; notes what was loaded."""

    class LLM:
        def __init__(
            self,
            model,
            *,
            dtype="auto",
            revision=None,
            seed=0,
            tensor_parallel_size=1,
            gpu_memory_utilization=0.9,
            max_model_len=None,
            logprobs_mode="raw_logprobs",
            enforce_eager=False,
            trust_remote_code=False,
        ):
            given = {name: value for name, value in locals().items() if name != "self"}
            loaded.append({name: given[name] for name in given if "__" not in name})
            self.mode = logprobs_mode

        def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
            assert len(prompts) == len(sampling_params)
            pairs = zip(prompts, sampling_params, strict=True)
            return [self.answer(i, *pair) for i, pair in enumerate(pairs)]

        def answer(self, place, prompt, params):
            ids = prompt["prompt_token_ids"]
            assert not params.detokenize
            assert (params.top_p, params.min_p) == (1, 0)
            assert params.top_k in (0, -1)
            assert set(params.stop_token_ids) == policy.codec.stop_ids
            law = dataclasses.replace(
                policy.sampling, temperature=params.temperature, max_new_tokens=params.max_tokens
            )
            sampler = policy.with_sampling(law)
            text = policy.tokenizer.decode(ids).removeprefix("<|endoftext|>")
            (row,) = sampler.sample([text], params.n, np.random.default_rng(params.seed))
            scale = params.temperature if self.mode == "processed_logprobs" else 1.0
            scorer = policy.with_sampling(dataclasses.replace(law, temperature=scale))
            totals = scorer.log_prob([text], [row])[0].tolist()
            outputs = [output(i, *pair) for i, pair in enumerate(zip(row, totals, strict=True))]
            if change is not None:
                change(outputs)
            return RequestOutput(str(place), None, ids, outputs[::-1], True)

    def output(index, response, total):
        """The sum on the first token and zeros after: only the sum is read."""
        values = [total] + [0.0] * (len(response.token_ids) - 1)
        pairs = zip(response.token_ids, values, strict=True)
        steps = [{token: Logprob(value, 1)} for token, value in pairs]
        reason = response.finish_reason
        return CompletionOutput(index, "", list(response.token_ids), total, steps, reason)

    module = types.ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = LLM, SamplingParams
    return module
