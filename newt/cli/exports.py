"""`newt runs export` and `follow`: what runs have told, in files and in other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from newt.cli import watch
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import console
from newt.extras import require
from newt.runs.record import Run
from newt.runs.stored import read
from newt.runs.trackers import tracker


class Format(StrEnum):
    """What `export` writes."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    JSON = "json"


class Program(StrEnum):
    """Whom `follow` tells."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    TRACKIO = "trackio"


def export(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, at any time.")],
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="csv, parquet (a line for each value), jsonl (for each row): all metrics. json: the whole record, "
            "from which `newt runs plot --from` and `newt report --from` draw without a learner.",
        ),
    ] = Format.CSV,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("."),
    url: UrlOption = None,
) -> None:
    """Write what runs have told: a file for each. Parquet needs the extra parquet."""
    if format is Format.PARQUET:
        require("pyarrow", "parquet")  # here; the learner needs none
    api = Api(url)
    output.mkdir(parents=True, exist_ok=True)
    for run_id in run_ids:
        console.print(str(_export(api, run_id, format, output)), highlight=False, soft_wrap=True)


def _export(api: Api, run_id: str, format: Format, output: Path) -> Path:
    from newt.report import records  # NumPy takes a while to import
    from newt.runs.metrics_files import parquet_of

    target = output / f"{run_id}-metrics.{format.value}"
    if format is Format.JSON:
        loaded = records.fetch(api, [run_id], "all")
        for problem in loaded.problems:
            console.print(problem, markup=False, highlight=False, soft_wrap=True)
        (target,) = records.save(list(loaded.records.values()), output) or [target]
    elif format is Format.PARQUET:
        api.get(f"/runs/{run_id}")  # before there is a file
        with target.open("wb") as out:
            out.writelines(parquet_of(records.pages(api, run_id)))
    else:
        api.download(f"/runs/{run_id}/metrics?format={format.value}", target)
    return target


def follow(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run, at work or ended.")],
    to: Annotated[Program, typer.Option("--to", help="Whom to tell.")],
    output: Annotated[Path, typer.Option(help="Folder of TensorBoard's event files.")] = Path("tensorboard"),
    url: UrlOption = None,
) -> None:
    """Tell another program what a run has told, and what it tells until it ends.

    Needs the extra tensorboard, wandb or trackio; where these two keep it is theirs to say: WANDB_MODE=offline.
    """
    from newt.report import records

    api, position, count = Api(url), "-", 0
    told = tracker(to.value, read(Run, api.get(f"/runs/{run_id}")), output)
    try:
        for _ in watch.states(api, run_id):
            for rows in records.pages(api, run_id, position):
                told.log(rows)
                position, count = rows[-1].id, count + len(rows)
    finally:
        told.close()
    console.print(f"{count} rows of {run_id} told to {to.value}", highlight=False, soft_wrap=True)
