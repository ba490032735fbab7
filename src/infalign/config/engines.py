"""Who draws the reference's rollouts, where that is not the local policy itself."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from infalign.addresses import require_addresses, require_variable
from infalign.config.section import BY_KIND, NAME_ALONE, Section, is_positive, require

__all__ = ["VLLM", "Engine", "OpenAIServer", "require_engine_fits", "wherever_it_runs"]

_WITH_TOKENS = ("vllm", "sglang")
_LAW = ("model", "server", "revision", "dtype")
"""Settings of an engine that say what is drawn; the others say where, how patiently, and how what
comes is read."""


@dataclass(frozen=True, kw_only=True)
class _Engine(Section):
    model: str | None = None
    """What the engine knows the model as; `policy.model` by default."""
    tolerance: float = 0.1
    """How far the engine's log-probabilities may be from the local policy's, in nats per token,
    before it counts as another model. > 0."""

    def __post_init__(self) -> None:
        require(self.model != "", "model is empty; leave it out for that of `policy`")
        require(is_positive(self.tolerance), f"tolerance is {self.tolerance}; it must be > 0")


@dataclass(frozen=True, kw_only=True)
class OpenAIServer(_Engine):
    """Servers that speak OpenAI's protocol; needs `pip install 'infalign[server]'`."""

    base_urls: tuple[str, ...] = ("http://127.0.0.1:8000/v1",)
    """One or more servers of the same model; the work is spread, and goes on without one."""
    server: Literal["vllm", "sglang", "llama_cpp", "transformers", "openai"] = "vllm"
    """Which program it is: each is told differently to sample from the whole vocabulary."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is never stored."""
    revision: str = ""
    """Yours; change it when other weights are served under the same name."""
    log_probs: Literal["none", "model", "sampling"] | None = None
    """Law of the server's log-probabilities: before temperature (`model`) or after (`sampling`);
    by default what `server` tells unless it was started otherwise."""
    n_per_request: int = 8
    """Responses asked for in one request, where the server draws several. ≥ 1."""
    concurrency: int = 32
    """Requests in flight. ≥ 1."""
    connect_timeout: float = 10.0
    """Seconds. > 0."""
    read_timeout: float = 600.0
    """Seconds a server may be silent: at least its longest answer. > 0."""
    retries: int = 2
    """Further tries on one server before the next is asked. ≥ 0."""
    patience: float = 300.0
    """Seconds one request is tried before the run stops (and can be resumed). ≥ 0."""
    kind: Literal["openai_server"] = "openai_server"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_addresses(self.base_urls)
        require_variable(self.api_key_env)
        for name in ("n_per_request", "concurrency"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; 1 is the least")
        for name in ("connect_timeout", "read_timeout"):
            require(
                is_positive(getattr(self, name)), f"{name} is {getattr(self, name)}; it must be > 0"
            )
        for name in ("retries", "patience"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; 0 is the least")


@dataclass(frozen=True, kw_only=True)
class VLLM(_Engine):
    """vLLM in this process, on this machine's GPUs; needs `pip install 'infalign[vllm]'`."""

    tensor_parallel_size: int = 1
    """GPUs the model is spread over. ≥ 1."""
    gpu_memory_utilization: float = 0.5
    """Share of each GPU's memory; the local policy needs the rest. In (0, 1]."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of the weights."""
    max_model_len: int | None = None
    """Context window; the model's by default. ≥ 1."""
    kind: Literal["vllm"] = "vllm"

    def __post_init__(self) -> None:
        super().__post_init__()
        size, share = self.tensor_parallel_size, self.gpu_memory_utilization
        require(size >= 1, f"tensor_parallel_size is {size}; 1 is the least")
        require(0 < share <= 1, f"gpu_memory_utilization is {share}; a share in (0, 1] is needed")
        require(
            self.max_model_len is None or self.max_model_len >= 1,
            f"max_model_len is {self.max_model_len}; 1 is the least",
        )


Engine = Annotated[OpenAIServer | VLLM, BY_KIND, NAME_ALONE]


def require_engine_fits(engine: Any, policy: Any, training: Any, cluster: Any = None) -> None:
    """Refuse an engine that cannot draw what this experiment needs.

    Raises:
        ValueError: responses are listed and not sampled, or the solver needs log π_ref of the very
            tokens that were drawn and the engine does not tell them.
    """
    if engine is None:
        return
    require(
        policy.kind == "causal_lm",
        f"rollouts.engine is {engine.kind}, but policy is {policy.kind}, whose responses are "
        "listed: nothing is sampled. Leave the engine out, or choose `policy: causal_lm`",
    )
    size = getattr(engine, "tensor_parallel_size", 0)
    require(
        cluster is None or size == 0 or cluster.gpus_per_worker == size,
        f"rollouts.engine is vllm over {size} GPUs, but cluster.gpus_per_worker is "
        f"{getattr(cluster, 'gpus_per_worker', 0)}; each worker loads the engine, so they must be "
        "the same",
    )
    server = getattr(engine, "server", "vllm")
    require(
        training.kind not in ("fit", "offline") or server in _WITH_TOKENS,
        f"training is {training.kind}, which is relative to log π_ref of the tokens that were "
        f"drawn, but rollouts.engine.server is {server}, which does not tell them; one of "
        f"{', '.join(_WITH_TOKENS)} is needed, or `training: online`, or no engine",
    )
    require(
        policy.model != "embedded" or engine.model is not None or engine.kind == "vllm",
        "policy.model is embedded, a name that no server knows; give rollouts.engine.model, the "
        "name it serves that model by",
    )


def wherever_it_runs(experiment: Any) -> Any:
    """The experiment without what only says who does the work, and where.

    Two experiments of which this is the same have the same results: servers may move, and a run
    that was interrupted goes on with more patience. Offline training by several processes is that
    by one up to rounding; TRL's processes draw their own samples, so their number stays.
    """
    rollouts, engine = experiment.rollouts, experiment.rollouts.engine
    if engine is not None:
        law = {name: getattr(engine, name) for name in _LAW if hasattr(engine, name)}
        rollouts = dataclasses.replace(rollouts, engine=type(engine)(**law))
    training = experiment.training
    if training.kind == "offline":
        training = dataclasses.replace(training, processes=1, accelerate=None)
    return dataclasses.replace(experiment, cluster=None, rollouts=rollouts, training=training)
