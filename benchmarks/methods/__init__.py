"""The methods compared, by name: how each is made for a procedure and a strength."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks.methods.bonbon import BoNBoN
from benchmarks.methods.dpo import DPO
from benchmarks.methods.ipo import IPO
from benchmarks.methods.log_sigmoid import LogSigmoid
from benchmarks.methods.max_at_n import MaxAtN
from benchmarks.methods.method import Method, Reinforced
from benchmarks.methods.normalised import Normalised
from benchmarks.methods.qrpo import QRPO
from benchmarks.methods.qrpo_published import PublishedQRPO
from benchmarks.methods.raft import RAFT
from benchmarks.methods.raw import Raw
from benchmarks.methods.transformed import Transformed
from benchmarks.methods.vbon import VBoN
from benchmarks.methods.weighted_sft import WeightedSFT
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import RankProcedure
from infalign.quantile.transforms import Exponential, Identity, Log

__all__ = ["METHODS", "Entry", "Method", "Reinforced", "Transformed", "shows_best"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method as the comparisons name it."""

    title: str
    """In tables and legends."""
    paper: str
    """Where it comes from."""
    make: Callable[[RankProcedure, float], Method]
    """(procedure, strength) → method. Methods that know no procedure ignore it."""
    strengths: tuple[float, ...]
    """How far it is sent: one run each."""
    dial: str = "kl"
    """What a strength is: wanted `kl` of the optimum in nats, `n`, or `beta`."""
    aware: bool = False
    """Whether it depends on the procedure, so that each one needs its own run."""
    one_sided: bool = False
    """Whether it depends on nothing of the procedure but which end it shows, best or worst."""


KLS = (0.55, 1.1, 2.2)
"""A little more than the KLs compared at, because training ends short of its optimum."""


def shows_best(procedure: RankProcedure) -> bool:
    """Whether a procedure is more likely to answer with its best candidate than its worst."""
    return bool(procedure.rank_density(0.99) > procedure.rank_density(0.01))


BETAS = (1.3, 4.5, 10.0)
"""Of DPO."""
PICKED = (4.0, 5.0, 9.0, 32.0)
"""Of best-of-n picks: optima of KL 0.64, 0.81, 1.31, 2.50 where no response has much mass, and of
0.50, 0.64, 1.08, 2.18 on the listed openings, whose likeliest answer has 0.46 on average."""
POWERS = (4.0, 6.0, 8.0, 16.0, 32.0, 56.0)
"""Of variational best-of-N: optima of KL 0.64, 0.96, 1.20, 1.84, 2.50, 3.04 where no response has
much mass, and of 0.37, 0.56, 0.72, 1.16, 1.69, 2.15 on the listed openings. Six, so that every
world has one a little above each KL."""
IMITATED = (3.0, 8.0, 32.0)
"""Of BoNBoN, whose KL hardly grows with n: 0.60, 0.88, 0.94 on the made world."""
SHORT = (0.75, 1.7, 3.6)
"""Of QRPO as published, which ends short of the KL that it aims at."""


def _steep(procedure: RankProcedure) -> Exponential:
    """exp(10u) where the best is shown, −exp(−10u) where the worst is."""
    return Exponential(10.0 if shows_best(procedure) else -10.0)


METHODS: Mapping[str, Entry] = MappingProxyType(
    {
        "optimal": Entry(
            "InfAlign, optimal Φ",
            "2412.19792",
            lambda procedure, kl: Transformed(optimal_transform(procedure, kl=kl), kl),
            KLS,
            aware=True,
        ),
        "exponential": Entry(
            "InfAlign, exp(±10u)",
            "2412.19792",
            lambda procedure, kl: Transformed(_steep(procedure), kl),
            KLS,
            one_sided=True,
        ),
        "identity": Entry(
            "calibrated only", "2412.19792", lambda _, kl: Transformed(Identity(), kl), KLS
        ),
        "log": Entry("log u", "2412.19792", lambda _, kl: Transformed(Log(), kl), KLS),
        "raw": Entry("RL on the raw reward", "2402.14740", lambda _, kl: Raw(kl), KLS),
        "normalised": Entry(
            "RL, reward normalised per prompt", "2402.03300", lambda _, kl: Normalised(kl), KLS
        ),
        "log_sigmoid": Entry(
            "RL, log-sigmoid of centred reward", "2402.00742", lambda _, kl: LogSigmoid(kl), KLS
        ),
        "weighted_sft": Entry(
            "reward-weighted SFT", "1910.00177", lambda _, kl: WeightedSFT(kl), KLS
        ),
        "ipo": Entry("IPO, ranked pairs", "2310.12036", lambda _, kl: IPO(kl), KLS),
        "dpo": Entry(
            "DPO, ranked pairs", "2305.18290", lambda _, beta: DPO(beta), BETAS, dial="beta"
        ),
        "bonbon": Entry("BoNBoN", "2406.00832", lambda _, n: BoNBoN(int(n)), IMITATED, dial="n"),
        "vbon": Entry("variational best-of-N", "2407.06057", lambda _, n: VBoN(n), POWERS, "n"),
        "raft": Entry("SFT on best of n", "2304.06767", lambda _, n: RAFT(int(n)), PICKED, "n"),
        "qrpo_published": Entry(
            "QRPO as published, optimal Φ",
            "2507.08068",
            lambda procedure, kl: PublishedQRPO(optimal_transform(procedure, kl=kl), kl),
            SHORT,
            aware=True,
        ),
        "qrpo": Entry(
            "QRPO, finite K, optimal Φ",
            "2507.08068",
            lambda procedure, kl: QRPO(optimal_transform(procedure, kl=kl), kl),
            KLS,
            aware=True,
        ),
        "max_at_n": Entry(
            "max@N policy gradient of the win rate", "2510.23393", MaxAtN, KLS, aware=True
        ),
        "max_reward_at_n": Entry(
            "max@N policy gradient of the reward",
            "2510.23393",
            lambda procedure, kl: MaxAtN(procedure, kl, "reward"),
            KLS,
            aware=True,
        ),
    }
)
