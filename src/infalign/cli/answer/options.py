"""The options of `decode` and `chat`."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "API",
    "HOW",
    "WHO",
    "Answers",
    "Beta",
    "Block",
    "Calibrate",
    "Chunk",
    "ExperimentFile",
    "Field",
    "KeyVariable",
    "Label",
    "Limit",
    "MaxNewTokens",
    "MaxResponses",
    "MaxTokens",
    "Model",
    "Number",
    "Policy",
    "ProcedureName",
    "RewardName",
    "Seed",
    "Server",
    "ServerKind",
    "Source",
    "StepCount",
    "Stop",
    "Temperature",
    "Tokenizer",
]

WHO, HOW = "Who answers, and who judges", "How"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="FOLDER|ID",
        help="A causal language model: a folder or hub id, `embedded`, or what a server calls it.",
        rich_help_panel=WHO,
    ),
]
ExperimentFile = Annotated[
    Path | None,
    typer.Option(
        "--experiment",
        metavar="FILE",
        help="Take policy, reward and procedure from this experiment; see --policy.",
        rich_help_panel=WHO,
    ),
]
RewardName = Annotated[
    str | None,
    typer.Option(
        "--reward",
        "-r",
        metavar="REWARD",
        help="`module:function`, a classifier's folder or hub id, or `embedded` "
        "(`embedded:gold`, `embedded:vader`).",
        rich_help_panel=WHO,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="NAME|INDEX",
        help="Which label of a classifier is the reward.",
        rich_help_panel=WHO,
    ),
]
Server = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="Ask this OpenAI-compatible server; may be repeated for several of one model.",
        rich_help_panel=WHO,
    ),
]
ServerKind = Annotated[
    str | None,
    typer.Option(
        "--server-kind",
        metavar="NAME",
        help="vllm, sglang, llama_cpp, transformers or, by default, openai.",
        rich_help_panel=WHO,
    ),
]
API = Annotated[
    str | None,
    typer.Option(
        "--api",
        metavar="NAME",
        help="completions or chat; by default chat where prompts are messages.",
        rich_help_panel=WHO,
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="FOLDER|ID",
        help="Of the model a vLLM or SGLang server serves: speak in token ids, which procedures "
        "that go on from a beginning need.",
        rich_help_panel=WHO,
    ),
]
KeyVariable = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="VARIABLE",
        help="Environment variable with the server's key.",
        rich_help_panel=WHO,
    ),
]
ProcedureName = Annotated[
    str | None,
    typer.Option(
        "--procedure",
        metavar="NAME",
        help="Such as best_of_n, 'soft_best_of_8(0.1)', majority_vote, 'qalign(64, beta=0.5)'.",
        rich_help_panel=HOW,
    ),
]
Number = Annotated[
    int | None,
    typer.Option("--n", metavar="N", help="Candidates per answer.", rich_help_panel=HOW),
]
Beta = Annotated[
    float | None,
    typer.Option("--beta", metavar="BETA", help="Of procedures with one.", rich_help_panel=HOW),
]
StepCount = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", help="Of a chain.", rich_help_panel=HOW),
]
Block = Annotated[
    int | None,
    typer.Option("--block", metavar="TOKENS", help="Of blockwise ones.", rich_help_panel=HOW),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", "-t", metavar="T", help="> 0; 1 by default.", rich_help_panel=HOW
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        metavar="N",
        help="Of one response; 128 by default.",
        rich_help_panel=HOW,
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        help="Ends a response, \\\\n a line; may be repeated.",
        rich_help_panel=HOW,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        help="Of everything random; 0 by default.",
        rich_help_panel=HOW,
    ),
]

_BUDGET, _FILES = "Budget", "Files"

Source = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS|EXPERIMENT",
        help="Prompts (.jsonl, .parquet, .csv, a saved dataset, - for standard input), or an "
        "experiment file (.yaml).",
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        "-p",
        metavar="NAME",
        help="Of an experiment: infalign, calibrated, raw or reference.",
        rich_help_panel=WHO,
    ),
]
Answers = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Answers to PROMPTS, .parquet or .jsonl; without it lines of JSON to standard output. "
        "Of an EXPERIMENT: its folder, and answers go to standard output.",
        rich_help_panel=_FILES,
    ),
]
Field = Annotated[
    str | None,
    typer.Option(
        "--field",
        metavar="NAME",
        help="The column with the prompts; found by itself where it has a usual name.",
        rich_help_panel=_FILES,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", help="Only the first N prompts.", rich_help_panel=_FILES),
]
Calibrate = Annotated[
    int | None,
    typer.Option(
        "--calibrate",
        metavar="K",
        help="Draw K responses of the reference to each prompt and turn rewards into quantiles, "
        "for procedures that look at them.",
        rich_help_panel=HOW,
    ),
]
MaxResponses = Annotated[
    int | None,
    typer.Option(
        "--max-responses",
        metavar="N",
        help="Never sample more, over all prompts; what is answered is kept.",
        rich_help_panel=_BUDGET,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens-total", metavar="N", help="The same in tokens.", rich_help_panel=_BUDGET
    ),
]
Chunk = Annotated[
    int | None,
    typer.Option(
        "--chunk",
        metavar="N",
        help="Prompts answered at a time; no more are lost when it stops.",
        rich_help_panel=_BUDGET,
    ),
]
