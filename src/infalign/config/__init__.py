"""The experiment file: dataclasses, validated.

One frozen dataclass per stage, nested in :class:`Experiment`; every default stands there and
nowhere else. The file is YAML with the same names. What can be chosen among (a policy, a reward, a
procedure, a transform, a solver) has a `kind`, and where the kind says it all it may stand alone:
`transform: optimal`.
"""

from infalign.config.cluster import Cluster, RayCluster
from infalign.config.engines import VLLM, Engine, OpenAIServer, wherever_it_runs
from infalign.config.experiment import (
    CausalLM,
    ChoiceLM,
    Evaluate,
    Experiment,
    LoRA,
    Policy,
    Prompts,
    Report,
    Rollouts,
)
from infalign.config.loading import (
    dump_experiment,
    load_experiment,
    read_experiment,
    validate_experiment,
)
from infalign.config.members import (
    BestOfN,
    CallableReward,
    ClassifierReward,
    EmbeddedReward,
    ExponentialTransform,
    IdentityProcedure,
    IdentityTransform,
    LogTransform,
    MedianOfN,
    OptimalTransform,
    OrderStatistic,
    Procedure,
    Reward,
    Transform,
    WorstOfN,
)
from infalign.config.solvers import (
    ExactSolver,
    FitSolver,
    OfflineSolver,
    OnlineDecodedSolver,
    OnlineSolver,
    Solver,
)
from infalign.config.text_procedures import (
    MCMC,
    BlockwiseBestOfN,
    MajorityVote,
    SoftBestOfN,
    TextProcedure,
)

__all__ = [
    "MCMC",
    "VLLM",
    "BestOfN",
    "BlockwiseBestOfN",
    "CallableReward",
    "CausalLM",
    "ChoiceLM",
    "ClassifierReward",
    "Cluster",
    "EmbeddedReward",
    "Engine",
    "Evaluate",
    "ExactSolver",
    "Experiment",
    "ExponentialTransform",
    "FitSolver",
    "IdentityProcedure",
    "IdentityTransform",
    "LoRA",
    "LogTransform",
    "MajorityVote",
    "MedianOfN",
    "OfflineSolver",
    "OnlineDecodedSolver",
    "OnlineSolver",
    "OpenAIServer",
    "OptimalTransform",
    "OrderStatistic",
    "Policy",
    "Procedure",
    "Prompts",
    "RayCluster",
    "Report",
    "Reward",
    "Rollouts",
    "SoftBestOfN",
    "Solver",
    "TextProcedure",
    "Transform",
    "WorstOfN",
    "dump_experiment",
    "load_experiment",
    "read_experiment",
    "validate_experiment",
    "wherever_it_runs",
]
