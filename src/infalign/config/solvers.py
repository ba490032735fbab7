"""How the policy is moved: the solvers the experiment file chooses among.

All of them climb the same objective, E[Φ] − β·KL, so all share one dial: `beta`, or the KL the
optimum shall have, from which β follows.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from infalign.config.section import BY_KIND, NAME_ALONE, NO_TRUTH, Section, is_positive, require

__all__ = [
    "LAUNCHES",
    "ExactSolver",
    "FitSolver",
    "OfflineSolver",
    "OnlineDecodedSolver",
    "OnlineSolver",
    "Solver",
    "require_shared_out",
]

LAUNCHES = ("ddp", "fsdp", "zero2", "zero3")
"""Ways for several processes to work together that come with this package."""


@dataclass(frozen=True, kw_only=True)
class _Solver(Section):
    kl: float | None = None
    """KL of the optimum from the reference, mean over prompts, in nats; β follows. > 0."""
    beta: float | None = None
    """KL coefficient. > 0. Give exactly one of `kl` and `beta`."""
    steps: int = 60
    """Updates of the parameters. ≥ 1."""
    learning_rate: float = 5e-4
    """Of AdamW. > 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate falls to zero after warm-up, if it does."""
    warmup: int = 0
    """Steps over which the rate rises linearly from zero. ≥ 0."""
    max_gradient_norm: float | None = None
    """Longer gradients are shortened to this; never by default. > 0."""
    prompts_per_step: int | None = None
    """Training prompts in one update; all by default. ≥ 1."""
    prompts_per_pass: int = 8
    """Prompts in one forward and backward pass: memory, not mathematics. ≥ 1."""
    checkpoint_every: int = 10
    """Steps between checkpoints, from which a run resumes. ≥ 1."""
    stop_at_kl: float | None = None
    """Stop early when the measured KL reaches this many nats. > 0."""
    processes: Annotated[int, NO_TRUTH] = 1
    """Processes that train one policy together, each on a GPU or a share of the CPUs. ≥ 1."""
    accelerate: str | None = None
    """How they work together: ddp (the default), fsdp, zero2, zero3, or the path of an accelerate
    configuration."""

    def __post_init__(self) -> None:
        require(
            (self.kl is None) != (self.beta is None),
            f"kl is {self.kl} and beta is {self.beta}; exactly one of them is needed, since each "
            "follows from the other",
        )
        for name in ("kl", "beta", "learning_rate", "max_gradient_norm", "stop_at_kl"):
            value = getattr(self, name)
            require(
                value is None or is_positive(value),
                f"{name} is {value}; a finite number greater than 0 is needed",
            )
        for name in ("steps", "prompts_per_step", "prompts_per_pass", "checkpoint_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}; at least 1 is needed")
        require(self.warmup >= 0, f"warmup is {self.warmup}; 0 or more is needed")
        self._require_company()

    def _require_company(self) -> None:
        """Refuse several processes where there is nothing to share out."""
        count, how = self.processes, self.accelerate
        require(
            not isinstance(count, bool) and count >= 1,
            f"processes is {count}; a whole number is needed, at least 1",
        )
        shares = isinstance(self, OfflineSolver) or getattr(self, "engine", "") == "trl"
        require(
            count == 1 or shares,
            f"processes is {count}, but this solver takes its steps in one process: 1 is needed. "
            "`kind: offline` and `kind: online` with `engine: trl` share a step out among several",
        )
        require(
            how is None or count > 1,
            f"accelerate is {how}, but processes is {count}; it says how several processes work "
            "together: 2 or more are needed, one for each GPU. Or leave it out",
        )
        require(
            how is None or how in LAUNCHES or how.endswith((".yaml", ".yml", ".json")),
            f"accelerate is {how}; one of {', '.join(LAUNCHES)} is needed, or the path of an "
            "accelerate configuration that ends in .yaml, .yml or .json",
        )
        require(
            how not in ("fsdp", "zero3") or isinstance(self, OfflineSolver),
            f"accelerate is {how}, but engine is trl, whose checkpoints here hold the weights of "
            "one process; ddp or zero2 is needed, which leave every process all of them",
        )
        given = self.prompts_per_step
        require_shared_out(self, given, f"prompts_per_step is {given}")


@dataclass(frozen=True, kw_only=True)
class _StoredSolver(_Solver):
    measure_every: int = 10
    """Steps between measurements of KL and win rate on fresh samples; 0: never. ≥ 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.measure_every >= 0, f"measure_every is {self.measure_every}; 0 or more needed")
        require(
            self.stop_at_kl is None or self.measure_every > 0,
            f"stop_at_kl is {self.stop_at_kl}, but measure_every is 0; this solver samples nothing "
            "itself and would never see its KL",
        )


@dataclass(frozen=True, kw_only=True)
class ExactSolver(_Solver):
    """The exact gradient, by summing over all responses of an enumerable policy."""

    kind: Literal["exact"] = "exact"


@dataclass(frozen=True, kw_only=True)
class FitSolver(_StoredSolver):
    """Weighted fit of the tilted rollouts, then refinement on the policy's own samples."""

    loss: Literal["likelihood", "contrast"] = "likelihood"
    """Which cross-entropy: of the texts, or among the rollouts of a prompt."""
    samples_per_prompt: int | None = None
    """Rollouts of each prompt in one step, drawn by weight; all by default. ≥ 2."""
    refine_steps: int = 0
    """Online steps after the fit. ≥ 0."""
    kind: Literal["fit"] = "fit"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_samples(self.samples_per_prompt)
        require(
            self.loss == "likelihood" or self.samples_per_prompt is None,
            f"samples_per_prompt is {self.samples_per_prompt}, but loss is contrast, which is "
            "among all rollouts of a prompt; leave it out",
        )
        require(self.refine_steps >= 0, f"refine_steps is {self.refine_steps}; 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class OfflineSolver(_StoredSolver):
    """Regression of the log-ratio on the training reward over stored rollouts; log Z is known."""

    kind: Literal["offline"] = "offline"


@dataclass(frozen=True, kw_only=True)
class OnlineSolver(_Solver):
    """REINFORCE, leave-one-out, on the policy's own responses."""

    samples_per_prompt: int = 8
    """Responses drawn to each prompt in a step. ≥ 2, as they are each other's baseline."""
    divergence: Literal["k1", "rao_blackwell"] = "k1"
    """KL of a response: its log-ratio, or the sum of its next-token laws' divergences."""
    engine: Literal["builtin", "trl"] = "builtin"
    """Who takes the steps; `trl` needs `pip install 'infalign[trl]'` and runs on many GPUs too."""
    trainer: Literal["rloo", "grpo"] | None = None
    """Of TRL's; `rloo` by default, which has the same optimum. `grpo` ends near it."""
    kind: Literal["online"] = "online"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_samples(self.samples_per_prompt)
        require(
            self.engine == "trl" or self.trainer is None,
            f"trainer is {self.trainer}, but engine is builtin, which has one of its own; leave it "
            "out, or choose `engine: trl`",
        )
        require(
            self.engine == "builtin" or self.divergence == "k1",
            f"divergence is {self.divergence}, but engine is trl, whose trainers estimate the KL "
            "from the sampled tokens; leave it out, or choose `engine: builtin`",
        )


@dataclass(frozen=True, kw_only=True)
class OnlineDecodedSolver(_Solver):
    """REINFORCE on the win rate after decoding itself; needs no transform and no theory.

    `beta` is in win rate per nat: what the last nat of KL has to win. The baselines are trained
    online towards the KL that the exact tilt by the bare quantile has at this `beta`.
    """

    samples_per_prompt: Annotated[int, NO_TRUTH] = 8
    """Responses drawn to each prompt in a step; more than the procedure's n. ≥ 2."""
    replays: Annotated[int, NO_TRUTH] = 64
    """Subsets of them on which the procedure is run, about. ≥ 1."""
    runs: Annotated[int, NO_TRUTH] = 4
    """Runs at each prompt in a step, where it goes on from beginnings of responses. ≥ 2."""
    opponents: Annotated[int, NO_TRUTH] = 32
    """The reference's answers to each prompt that are to be beaten. ≥ 1."""
    kind: Literal["online_decoded"] = "online_decoded"

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_samples(self.samples_per_prompt)
        require(
            self.beta is not None,
            f"kl is {self.kl}, but no theory says which β leads there for what is decoded; `beta` "
            "is needed, in win rate per nat (0.1, say), and stop_at_kl to stay below a KL",
        )
        for name, least in (("replays", 1), ("runs", 2), ("opponents", 1)):
            value = getattr(self, name)
            require(value >= least, f"{name} is {value}; at least {least} is needed")


Solver = Annotated[
    ExactSolver | FitSolver | OfflineSolver | OnlineSolver | OnlineDecodedSolver,
    BY_KIND,
    NAME_ALONE,
]


def require_shared_out(training: Any, prompts: int | None, said: str) -> None:
    """Refuse a step that the processes cannot share out equally.

    Args:
        training: a solver's section.
        prompts: of one step; nothing is refused while they are not known.
        said: what their number follows from, for the message.

    Raises:
        ValueError: naming prompts_per_step, processes and what would do.
    """
    count = training.processes
    if prompts is None or count == 1:
        return
    k = training.samples_per_prompt if isinstance(training, OnlineSolver) else 1
    unit = count // math.gcd(count, k)
    what = "prompts" if k == 1 else f"responses ({k} to each prompt: samples_per_prompt)"
    low = prompts - prompts % unit
    more = [] if training.prompts_per_step is None else [low + unit]  # else there are no more
    wanted = " or ".join(str(number) for number in [low, *more] if number) or "more"
    require(
        prompts % unit == 0,
        f"{said}, but processes is {count}, and each process takes as many {what} of a step as any "
        f"other; prompts_per_step: {wanted} is needed, a multiple of {unit}, or other processes",
    )


def _require_samples(samples: int | None) -> None:
    require(
        samples is None or samples >= 2,
        f"samples_per_prompt is {samples}; at least 2 are needed, to be compared with each other",
    )
