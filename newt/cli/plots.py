"""`newt runs plot`: learning curves of any runs, beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import console, line
from newt.errors import InvalidInputError

if TYPE_CHECKING:
    from newt.report.records import RunRecord


def plot(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Runs to draw.")] = None,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("plots"),
    metric: Annotated[
        list[str] | None, typer.Option(help="Only these metrics of the trainer in losses.*; may be repeated.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="File or folder that `newt runs export --format json` wrote.")
    ] = None,
    url: UrlOption = None,
) -> None:
    """Draw scores and losses of runs while they train or later: PNG, SVG and CSV. Seeds of a group share a colour."""
    from newt.report import records  # NumPy, and matplotlib, take a while to import

    if source is None and not run_ids:
        raise InvalidInputError("RUN...", "name runs, or a file of them with --from")
    loaded = records.read_folder(source) if source else records.fetch(Api(url), run_ids or (), "all")
    chosen = [record for name, record in loaded.records.items() if not run_ids or name in run_ids]
    lacking = [name for name in run_ids or () if name not in loaded.records]
    for problem in (*loaded.problems, *(f"no record of run {name}" for name in lacking)):
        console.print(f"missing: {line(problem)}", highlight=False, soft_wrap=True)
    if not chosen:
        raise InvalidInputError("RUN...", f"nothing to draw: no record of {', '.join(run_ids or ['any run'])}")
    for path in draw(chosen, output, metric):
        console.print(str(path), highlight=False, soft_wrap=True)


def draw(chosen: Sequence[RunRecord], folder: Path, metrics: Sequence[str] | None = None) -> list[Path]:
    """Writes scores.* and losses.* into a folder; returns the files.

    Raises:
        InvalidInputError: No run has told of one of the metrics.
    """
    from newt.report import records, style, training

    groups = training.groups_of(chosen)
    known = set().union(*(told.names for group in groups for told in group.runs))
    for name in metrics or ():
        if name not in known:
            raise InvalidInputError(
                "--metric", f"got {name!r}, expected one of {', '.join(sorted(known)) or 'none yet'}"
            )
    drawings = [
        training.scores(groups, "scores", "Scores while training"),
        training.losses(groups, "losses", "Metrics of training", metrics),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    stamp = records.stamp(chosen)
    return [path for drawn in drawings if drawn.figure is not None for path in style.write(drawn, folder, stamp)]
