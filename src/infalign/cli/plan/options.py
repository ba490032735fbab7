"""What can be said after `infalign plan`, in groups: one for each question."""

from pathlib import Path
from typing import Annotated, Any

import typer

TARGET = "How far for a win rate: --target-win-rate"
MISMATCH = "Decoded another way than trained for: --mismatch"
ROLLOUTS = "Calibration: --rollouts, --loss"
TIES = "Equal rewards: --pass-rate, --tie"
POWER = "Measuring: --power"
JUDGE = "Another reward judges: --agreement, --scores"
OUTPUT = "Output"


def _option(*names: str, panel: str | None = None, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


File = Annotated[
    Path | None,
    typer.Argument(metavar="EXPERIMENT", help="Take procedure and KL from an experiment file."),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--procedure",
        "-p",
        metavar="NAME",
        help="best_of_n, worst_of_n, median_of_n, order_statistic, identity; best_of_4 says n "
        "too. Others with settings in brackets: best_of_poisson(4), best_of_geometric(4), "
        "rewind_and_repeat(0.9, 8), soft_best_of_4(0.1), metropolis_hastings(16, n=4). "
        "module:NAME is one of your own, checked first.",
        show_default="best_of_n",
    ),
]
Count = Annotated[
    int | None,
    typer.Option("--n", "-n", metavar="N", help="Responses per answer.", show_default="4"),
]
Probabilities = Annotated[
    str | None,
    typer.Option(
        "--probabilities", metavar="P,P,...", help="Of the ranks, worst first: order_statistic."
    ),
]
KLs = Annotated[
    list[float] | None,
    typer.Option(
        "--kl",
        "-k",
        metavar="NATS",
        help="From the reference; may be repeated.",
        show_default="1",
    ),
]
Transforms = Annotated[
    list[str] | None,
    typer.Option(
        "--transform",
        "-t",
        metavar="NAME",
        help="identity, log, exponential(5) or a function of yours, module:function, beside the "
        "optimal one; may be repeated.",
        show_default="all of these, with exp(10) and exp(-10)",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="NAME",
        help="Decode the reference by this procedure.",
        show_default="the same as --procedure; identity for --target-win-rate and --gold",
    ),
]
Target = Annotated[
    float | None,
    _option("--target-win-rate", metavar="W", panel=TARGET, help="As 0.9: the least KL, by N."),
]
KLPrice = Annotated[
    float | None,
    _option(
        "--kl-price",
        metavar="N",
        panel=TARGET,
        help="Candidates per answer that one nat is worth; marks the cheapest pair.",
    ),
]
Ns = Annotated[
    str | None,
    _option(
        "--ns",
        metavar="N,N,...",
        panel=TARGET,
        help="Numbers of candidates; for --mismatch and --gold too.",
        show_default="1,2,4,8,16",
    ),
]
IsMismatch = Annotated[
    bool,
    _option("--mismatch", panel=MISMATCH, help="Train-for × decode-with, and the best worst case."),
]
Criterion = Annotated[
    str | None,
    _option(
        "--criterion",
        metavar="WORD",
        panel=MISMATCH,
        help="Worst case by `loss` to each limit, or by `win_rate`.",
        show_default="loss",
    ),
]
HeatMap = Annotated[
    Path | None,
    _option("--heatmap", metavar="FILE", panel=MISMATCH, help="Draw it: .png, .svg or .pdf."),
]
Rollouts = Annotated[
    str | None,
    _option("--rollouts", metavar="K,K,...", panel=ROLLOUTS, help="What K rollouts cost."),
]
Loss = Annotated[
    float | None,
    _option("--loss", metavar="POINTS", panel=ROLLOUTS, help="How many lose no more than this."),
]
PassRate = Annotated[
    float | None,
    _option(
        "--pass-rate",
        metavar="P",
        panel=TIES,
        help="The reward is pass or fail; the reference passes with this probability.",
    ),
]
Tied = Annotated[
    list[str] | None,
    _option(
        "--tie",
        metavar="A:B",
        panel=TIES,
        help="These quantiles share a reward: 0:0.4 where 40 % of answers are empty and worst. "
        "May be repeated.",
    ),
]
IsPower = Annotated[
    bool, _option("--power", panel=POWER, help="Prompts × samples needed to see a difference.")
]
Difference = Annotated[
    float | None,
    _option("--difference", metavar="POINTS", panel=POWER, help="To see.", show_default="2"),
]
Samples = Annotated[
    str | None,
    _option(
        "--samples",
        metavar="M,M,...",
        panel=POWER,
        help="Of each side, to each prompt.",
        show_default="N, 2N, 4N, 8N",
    ),
]
Prompts = Annotated[
    int | None,
    _option("--prompts", metavar="P", panel=POWER, help="Also: what so many show."),
]
PromptSD = Annotated[
    float | None,
    _option(
        "--prompt-sd",
        metavar="POINTS",
        panel=POWER,
        help="How much the true win rate varies over prompts.",
        show_default="0",
    ),
]
Chance = Annotated[
    float | None,
    _option("--chance", panel=POWER, help="To see the difference.", show_default="0.8"),
]
Confidence = Annotated[
    float | None, _option("--confidence", panel=POWER, help="Of the test.", show_default="0.95")
]
Rho = Annotated[
    float | None,
    _option(
        "--agreement",
        "--rho",
        metavar="RHO",
        panel=JUDGE,
        help="Rank correlation of the reward that selects and the gold one that judges, -1 to 1.",
    ),
]
Scores = Annotated[
    Path | None,
    _option(
        "--scores",
        metavar="PATH",
        panel=JUDGE,
        help="Estimate it: from an experiment's folder, a store of rollouts, or a CSV or Parquet "
        "file with the columns prompt_id, proxy and gold.",
    ),
]
ProxyGold = Annotated[
    str | None,
    _option(
        "--score-columns",
        metavar="PROXY,GOLD",
        panel=JUDGE,
        help="Names of the two rewards.",
        show_default="proxy,gold; a store's only two",
    ),
]
IsGold = Annotated[
    bool, _option("--gold", panel=JUDGE, help="Where more N or more KL stops helping.")
]
Html = Annotated[
    Path | None,
    _option("--html", metavar="FILE", panel=OUTPUT, help="A page with sliders, no network."),
]
AsJson = Annotated[bool, _option("--json", panel=OUTPUT, help="For programs.")]
