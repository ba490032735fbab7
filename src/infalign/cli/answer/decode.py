"""`decode`: answers by a procedure, to the prompts of an experiment or of any file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infalign.cli.answer import options
from infalign.cli.answer.given import given_from
from infalign.cli.answer.prompts import answer_prompts
from infalign.cli.console import print_result
from infalign.cli.failing import explained
from infalign.cli.opening import Changes, opened_study

if TYPE_CHECKING:
    from infalign.decoding import Decoded

__all__ = ["decode"]

_OF_EXPERIMENTS = ("source", "policy", "changes", "output")
"""Options that go with an experiment file; all others go with prompts."""
_FILES = (".jsonl", ".json", ".ndjson", ".parquet", ".csv", ".tsv")
"""Endings of files with rows; no experiment's folder is meant by them."""


@explained
def decode(
    source: options.Source,
    policy: options.Policy = "infalign",
    changes: Changes = None,
    output: options.Answers = None,
    model: options.Model = None,
    experiment: options.ExperimentFile = None,
    reward: options.RewardName = None,
    label: options.Label = None,
    server: options.Server = None,
    server_kind: options.ServerKind = None,
    api: options.API = None,
    tokenizer: options.Tokenizer = None,
    api_key_env: options.KeyVariable = None,
    procedure: options.ProcedureName = None,
    n: options.Number = None,
    beta: options.Beta = None,
    steps: options.StepCount = None,
    block: options.Block = None,
    calibrate: options.Calibrate = None,
    temperature: options.Temperature = None,
    max_new_tokens: options.MaxNewTokens = None,
    stop: options.Stop = None,
    seed: options.Seed = None,
    max_responses: options.MaxResponses = None,
    max_tokens_total: options.MaxTokens = None,
    chunk: options.Chunk = None,
    field: options.Field = None,
    limit: options.Limit = None,
) -> None:
    """Answer prompts by a procedure: best-of-N, a vote, a chain, a search.

    Of a file of prompts, -o makes the answers one file when all are there; until then what is \
finished lies beside it, and after Ctrl-C, a crash or the end of a budget the same command goes \
on. Without -o each answer is a line of JSON on standard output.

    Of an experiment file, it answers the held-out prompts by the experiment's own procedure, \
always to standard output; -o is then the experiment's folder, as of the other stages.

    Examples:
      [cyan]infalign decode prompts.jsonl -o answers.parquet --model gpt2 --procedure best_of_n \
--n 8 --reward my_rewards:brevity[/]
      [cyan]infalign decode prompts.jsonl -o answers.parquet --experiment experiment.yaml[/]
      [cyan]infalign decode - --model embedded --procedure majority_vote --n 16 < lines.txt[/]
      [cyan]infalign decode experiment.yaml > answers.jsonl[/]
    """
    said = dict(locals())
    if Path(source).suffix.lower() in (".yaml", ".yml"):
        _refuse_strangers(said)
        _of_experiment(Path(source), policy, changes, output)
        return
    if changes:
        raise ValueError("--set changes an experiment file, and prompts came. Leave it out.")
    answer_prompts(given_from(said), said)


def _refuse_strangers(said: Mapping[str, Any]) -> None:
    strangers = [key for key, value in said.items() if value and key not in _OF_EXPERIMENTS]
    if strangers:
        option = "--" + strangers[0].replace("_", "-")
        raise ValueError(
            f"{option} goes with a file of prompts, and an experiment file came, which says all "
            "that itself. Change its values with --set; or name prompts, and the experiment with "
            "--experiment."
        )


def _of_experiment(file: Path, policy: str, changes: list[str] | None, output: Path | None) -> None:
    _refuse_answers_file(file, output)
    with opened_study(file, changes, output) as (study, pipeline):
        texts = {prompt.id: prompt.text for prompt in study.prompts["held-out"]}
        for decoded in pipeline.decode(study, policy):
            print_result(json.dumps(_record(decoded, texts), ensure_ascii=False))


def _refuse_answers_file(file: Path, output: Path | None) -> None:
    """Where a file of answers is asked for, the experiment would be trained again in its place."""
    if output is not None and output.suffix.lower() in _FILES:
        raise ValueError(
            f"-o {output} is no folder, and of an experiment -o names the folder that everything "
            "is written to. For its held-out prompts: "
            f"`infalign decode {file} > {output.with_suffix('.jsonl')}`; for prompts of yours: "
            f"`infalign decode PROMPTS --experiment {file} -o {output.with_suffix('.parquet')}`."
        )


def _record(decoded: "Decoded", texts: dict[str, str]) -> dict[str, Any]:
    return {
        "prompt_id": decoded.prompt_id,
        "prompt": texts[decoded.prompt_id],
        "answer": decoded.text,
        "reward": _json_number(decoded.rewards[decoded.index]),
        "candidates": [response.text for response in decoded.candidates],
        "rewards": [_json_number(value) for value in decoded.rewards],
    }


def _json_number(value: float) -> float | None:
    return value if value == value else None  # JSON has no NaN
