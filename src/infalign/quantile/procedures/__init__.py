"""Procedures: what is done at inference, as an operator on laws over quantiles.

`procedure` is the contract; `ranks` looks only at the order of candidates, `random_count` at a
random number of them; `rewind_and_repeat`, `soft_best_of_n` and `metropolis_hastings` look at
quantiles. `checking` is for members of your own.
"""

from infalign.quantile.procedures.checking import check_procedure
from infalign.quantile.procedures.metropolis_hastings import MetropolisHastings
from infalign.quantile.procedures.order_statistic import OrderStatistic, median_of
from infalign.quantile.procedures.procedure import Law, Procedure, Uniform
from infalign.quantile.procedures.random_count import (
    RandomCount,
    best_of_geometric,
    best_of_poisson,
)
from infalign.quantile.procedures.ranks import (
    BestOfN,
    Identity,
    RankProcedure,
    WorstOfN,
)
from infalign.quantile.procedures.rewind_and_repeat import RewindAndRepeat
from infalign.quantile.procedures.soft_best_of_n import SoftBestOfN

__all__ = [
    "BestOfN",
    "Identity",
    "Law",
    "MetropolisHastings",
    "OrderStatistic",
    "Procedure",
    "RandomCount",
    "RankProcedure",
    "RewindAndRepeat",
    "SoftBestOfN",
    "Uniform",
    "WorstOfN",
    "best_of_geometric",
    "best_of_poisson",
    "check_procedure",
    "median_of",
]
