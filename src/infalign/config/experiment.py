"""The sections of the experiment file, stage by stage, and the whole."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from infalign.config.cluster import Cluster
from infalign.config.engines import Engine, require_engine_fits
from infalign.config.members import (
    BestOfN,
    EmbeddedReward,
    OptimalTransform,
    Procedure,
    Reward,
    Transform,
)
from infalign.config.section import BY_KIND, NAME_ALONE, Section, is_positive, require
from infalign.config.solvers import ExactSolver, FitSolver, OnlineSolver, Solver, require_shared_out
from infalign.config.text_procedures import require_decoding_fits

__all__ = [
    "CausalLM",
    "ChoiceLM",
    "Evaluate",
    "Experiment",
    "LoRA",
    "Policy",
    "Prompts",
    "Report",
    "Rollouts",
]


@dataclass(frozen=True, kw_only=True)
class Prompts(Section):
    """Where prompts come from, and how many go to which side."""

    path: str = "embedded"
    """A .jsonl, .parquet or .csv file, a saved dataset's folder, or `embedded`: review openings."""
    field: str | None = None
    """Column that holds the prompt; found by itself where it has a usual name."""
    train: int = 48
    """Prompts trained on. ≥ 1."""
    test: int = 24
    """Prompts held out. ≥ 1."""
    seed: int = 0
    """Of the split; apart from the experiment's, so that repeats share it. ≥ 0."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path is empty; a file, a folder or `embedded` is needed")
        require(
            self.field is None or self.path != "embedded",
            f"field is {self.field!r}, but the embedded prompts have no columns; leave it out",
        )
        require(self.train >= 1, f"train is {self.train}; at least 1 prompt is needed")
        require(self.test >= 1, f"test is {self.test}; at least 1 prompt must be held out")
        require(self.seed >= 0, f"seed is {self.seed}; 0 or more is needed")


@dataclass(frozen=True, kw_only=True)
class LoRA(Section):
    """A low-rank adapter on every linear layer of the body; switched off, it is the reference."""

    rank: int = 16
    """Of each update. ≥ 1."""
    alpha: float = 32.0
    """The update is scaled by alpha/rank. > 0."""
    layers: int | None = None
    """Adapt only the last so many blocks; all by default. ≥ 1."""

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank is {self.rank}; at least 1 is needed")
        require(is_positive(self.alpha), f"alpha is {self.alpha}; it must be > 0")
        require(
            self.layers is None or self.layers >= 1,
            f"layers is {self.layers}; at least 1 is needed, or leave it out for all",
        )


@dataclass(frozen=True, kw_only=True)
class _LanguageModel(Section):
    model: str = "embedded"
    """Folder or hub id, or `embedded`: SmolLM2-135M-Instruct."""
    temperature: float = 0.8
    """Logits are divided by it in sampling and in log-probabilities: part of the policy. > 0."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` takes bfloat16 where this machine is faster in it."""
    threads: int | None = None
    """CPU threads of one process; the machine's cores by default. ≥ 1."""
    lora: LoRA = field(default_factory=LoRA)
    """What is trained."""

    def __post_init__(self) -> None:
        require(bool(self.model), "model is empty; a folder, a hub id or `embedded` is needed")
        require(
            is_positive(self.temperature),
            f"temperature is {self.temperature}; it must be > 0, because log-probabilities are "
            "taken under the sampling law. Use a small value for near-greedy",
        )
        require(
            self.threads is None or self.threads >= 1,
            f"threads is {self.threads}; at least 1 is needed",
        )


@dataclass(frozen=True, kw_only=True)
class CausalLM(_LanguageModel):
    """A language model that writes free text."""

    max_new_tokens: int = 20
    """Length cap of a response in tokens, its end included. ≥ 1."""
    stop: tuple[str, ...] = ()
    """A token whose text contains one of these ends the response."""
    kind: Literal["causal_lm"] = "causal_lm"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.max_new_tokens >= 1,
            f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed",
        )
        require("" not in self.stop, "stop contains an empty string, which every token contains")


@dataclass(frozen=True, kw_only=True)
class ChoiceLM(_LanguageModel):
    """A language model whose responses are one token of its most likely: all can be listed."""

    candidates: int = 96
    """Responses to each prompt, the reference's most likely tokens. ≥ 2."""
    kind: Literal["choice_lm"] = "choice_lm"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.candidates >= 2,
            f"candidates is {self.candidates}; a choice needs at least 2",
        )


Policy = Annotated[CausalLM | ChoiceLM, BY_KIND, NAME_ALONE]


@dataclass(frozen=True, kw_only=True)
class Rollouts(Section):
    """How much is sampled from the reference."""

    k: int = 32
    """Responses per prompt. ≥ 2; 8 times the procedure's N or more is good."""
    chunk: int = 8
    """Prompts sampled, and written, at a time. ≥ 1."""
    engine: Engine | None = None
    """Who draws them; by default the policy itself."""

    def __post_init__(self) -> None:
        require(
            self.k >= 2,
            f"k is {self.k}; at least 2 responses per prompt are needed, because a calibration "
            "ranks them among each other. 32 or more is usual",
        )
        require(self.chunk >= 1, f"chunk is {self.chunk}; at least 1 prompt is needed")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Section):
    """What the policies are measured by."""

    samples: int = 32
    """Responses drawn to each prompt. ≥ 2 and ≥ every N."""
    prompts: int | None = None
    """Training prompts that policies are measured on; all by default. ≥ 2."""
    ns: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Best-of-N win rates are measured for these N. ≥ 1."""
    repeats: int = 4
    """Answers to each prompt of procedures that go on from beginnings. ≥ 1."""
    checkpoints: int = 4
    """Checkpoints of each policy that are measured, the last among them. ≥ 1."""

    def __post_init__(self) -> None:
        require(self.samples >= 2, f"samples is {self.samples}; at least 2 are needed")
        require(
            self.prompts is None or self.prompts >= 2,
            f"prompts is {self.prompts}; an error bar needs at least 2",
        )
        require(self.repeats >= 1, f"repeats is {self.repeats}; at least 1 is needed")
        require(self.checkpoints >= 1, f"checkpoints is {self.checkpoints}; at least 1 is needed")
        require(
            bool(self.ns) and min(self.ns) >= 1,
            f"ns is {list(self.ns)}; at least one number is needed, none below 1",
        )
        require(
            max(self.ns) <= self.samples,
            f"ns contains {max(self.ns)}, but samples is {self.samples}; best-of-N cannot be "
            "measured from fewer than N samples. Raise samples, or leave that N out",
        )


@dataclass(frozen=True, kw_only=True)
class Report(Section):
    """What the report shows."""

    title: str | None = None
    """Its heading; by default the experiment's name."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Section):
    """Everything a run depends on.

    Example:
        >>> Experiment(procedure=BestOfN(n=8)).procedure.candidates
        8
    """

    name: str = "experiment"
    """In the report and in log lines."""
    output: str = "runs/experiment"
    """Folder everything is written to; a run resumes from what is there."""
    seed: int = 0
    """Of everything random but the split. ≥ 0."""
    prompts: Prompts = field(default_factory=Prompts)
    policy: Policy = field(default_factory=CausalLM)
    """The reference, and what is trained to become the aligned policy."""
    rollouts: Rollouts = field(default_factory=Rollouts)
    cluster: Cluster | None = None
    """Whose workers draw and score; by default this process. The results are the same."""
    reward: Reward = field(default_factory=EmbeddedReward)
    """What is trained on."""
    gold: Reward | None = None
    """What judges beside it; another reward than the one trained on."""
    auditors: tuple[Reward, ...] = ()
    """Further rewards that are reported and never trained on."""
    procedure: Procedure = field(default_factory=BestOfN)
    """What is done at inference."""
    transform: Transform = field(default_factory=OptimalTransform)
    """Quantile → training reward."""
    training: Solver = field(default_factory=lambda: OnlineSolver(kl=1.0))
    baselines: tuple[Literal["raw", "calibrated"], ...] = ("raw", "calibrated")
    """Trained by the same solver for comparison: on the raw reward, on the bare quantile."""
    evaluate: Evaluate = field(default_factory=Evaluate)
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "name is empty; the report needs one")
        require(bool(self.output), "output is empty; a folder is needed")
        require(self.seed >= 0, f"seed is {self.seed}; 0 or more is needed")
        n, samples = self.procedure.candidates, self.evaluate.samples
        require(
            n <= samples,
            f"procedure samples {n} responses, but evaluate.samples is {samples}; the procedure "
            "cannot be measured from fewer. Raise evaluate.samples",
        )
        require(
            self.reward not in (self.gold, *self.auditors),
            "reward also stands under gold or auditors; what trains cannot judge. Choose another "
            "there",
        )
        require(
            len(set(self.baselines)) == len(self.baselines),
            f"baselines are {list(self.baselines)}; each can be trained once",
        )
        require(
            self.cluster is None or not isinstance(self.policy, ChoiceLM),
            "cluster is given, but policy is choice_lm, whose responses are listed: nothing is "
            "sampled that workers could share. Leave cluster out, or choose `policy: causal_lm`",
        )
        require_engine_fits(self.rollouts.engine, self.policy, self.training, self.cluster)
        self._require_feasible_training()
        require_decoding_fits(
            self.procedure, self.policy, self.transform, self.training, self.evaluate.samples
        )

    def _require_feasible_training(self) -> None:
        training = self.training
        require(
            not isinstance(training, ExactSolver) or isinstance(self.policy, ChoiceLM),
            "training is exact, which sums over all responses, but policy has too many to list; "
            "choose `policy: choice_lm`, or another solver",
        )
        require(
            getattr(training, "engine", "builtin") == "builtin"
            or isinstance(self.policy, CausalLM),
            f"training.engine is trl, which samples text, but policy is {self.policy.kind}; choose "
            "`policy: causal_lm`, or `training.engine: builtin`",
        )
        require(
            (training.prompts_per_step or 1) <= self.prompts.train,
            f"training.prompts_per_step is {training.prompts_per_step}, but prompts.train is "
            f"{self.prompts.train}",
        )
        if training.prompts_per_step is None:
            said = f"training: a step takes all of prompts.train = {self.prompts.train}"
            require_shared_out(training, self.prompts.train, said)
        if isinstance(training, FitSolver):
            require(
                (training.samples_per_prompt or 2) <= self.rollouts.k,
                f"training.samples_per_prompt is {training.samples_per_prompt}, but only "
                f"rollouts.k = {self.rollouts.k} are stored",
            )
