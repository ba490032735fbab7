"""Moving a policy towards Φ: losses, offline, online.

One contract, :class:`Solver`. `Exact` where responses can be listed; `Online` samples from the
policy; `Fit` and `Regression` learn from stored reference rollouts. All four converge to the same
tilted policy where their data allow, which is what their tests ask of them. `OnlineDecoded` needs
no Φ: it climbs the win rate of decoded answers itself, whatever the procedure.
"""

from infalign.training.checkpoints import load_weights
from infalign.training.decoded import OnlineDecoded
from infalign.training.descent import Descent
from infalign.training.exact import Exact
from infalign.training.fit import Fit
from infalign.training.online import Online
from infalign.training.regression import Regression
from infalign.training.rewards import (
    CalibratedReward,
    EnumeratedReward,
    RawReward,
    Scored,
    TrainingReward,
)
from infalign.training.solver import Checkpoint, Problem, Solver, TrainingResult

__all__ = [
    "CalibratedReward",
    "Checkpoint",
    "Descent",
    "EnumeratedReward",
    "Exact",
    "Fit",
    "Online",
    "OnlineDecoded",
    "Problem",
    "RawReward",
    "Regression",
    "Scored",
    "Solver",
    "TrainingResult",
    "TrainingReward",
    "load_weights",
]
