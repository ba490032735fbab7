"""What Python says about a state of the page's controls."""

from urllib.parse import parse_qsl

from infalign.planner.page import START
from infalign.quantile.finite import finite_win_rate
from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import (
    BestOfN,
    Identity,
    MetropolisHastings,
    Procedure,
    RewindAndRepeat,
    SoftBestOfN,
    WorstOfN,
    best_of_poisson,
    median_of,
)
from infalign.quantile.tilting import TiltedPolicy, beta_for_kl
from infalign.quantile.transforms import Exponential, Log, Transform
from infalign.quantile.transforms import Identity as IdentityTransform
from infalign.quantile.win_rate import win_rate


def state_of(hash_: str) -> dict:
    """The state that a URL hash says."""
    said = dict(parse_qsl(hash_.removeprefix("#")))
    words = ("procedure", "transform")
    counts = ("n", "k", "at_most", "steps")
    read = {k: v if k in words else int(v) if k in counts else float(v) for k, v in said.items()}
    return dict(START) | read


def procedure_of(s: dict) -> Procedure:
    """The procedure of a state."""
    n = s["n"]
    made = {
        "identity": Identity,
        "best_of_n": lambda: BestOfN(n),
        "worst_of_n": lambda: WorstOfN(n),
        "median_of_n": lambda: median_of(n),
        "best_of_poisson": lambda: best_of_poisson(n),
        "soft_best_of_n": lambda: SoftBestOfN(n, s["temperature"]),
        "rewind_and_repeat": lambda: RewindAndRepeat(s["threshold"], s["at_most"]),
        "metropolis_hastings": lambda: MetropolisHastings(s["steps"], beta=1 / (n - 1)),
    }
    return made[s["procedure"]]()


def numbers(s: dict) -> dict[str, float]:
    """The page's numbers by their names there."""
    procedure, kl, rho = procedure_of(s), s["kl"], s["agreement"]
    best = optimal_transform(procedure, kl=kl)
    gold = best if rho == 1 else optimal_transform(procedure, kl=kl, agreement=rho)
    transform: Transform = {
        "identity": IdentityTransform(),
        "log": Log(),
        "exponential": Exponential(s["t"]) if s["t"] else IdentityTransform(),
        "optimal": best,
        "gold": gold,
    }[s["transform"]]
    policy = TiltedPolicy(transform, beta_for_kl(transform, kl))
    judged = win_rate(policy, procedure, agreement=rho)
    found = {
        "decoded": win_rate(policy, procedure),
        "ordinary": win_rate(policy, Identity()),
        "limit": best.win_rate,
        "fraction": (judged - 0.5) / (gold.win_rate - 0.5),
        "beta": policy.beta,
        "candidates": procedure.mean_candidates(policy),
    }
    if rho < 1:
        found |= {"gold": judged, "goldLimit": gold.win_rate}
    if s["k"]:
        found["rollouts"] = finite_win_rate(transform, procedure, s["k"], kl, agreement=rho)
    return found
