"""`newt report`: figures and tables of runs or of an experiment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newt.cli.experiment_runner import Runner
from newt.cli.experiment_views import notes_of
from newt.cli.experiments import FolderOption, SeedsOption, VariantOption, numbers_of, shelf_of
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import console, line
from newt.errors import InvalidInputError
from newt.runs.evaluations import EvaluationJob
from newt.runs.expansion import Experiment
from newt.runs.record import Evaluation
from newt.runs.shelf import Shelf
from newt.runs.standing import Standing, match, match_evaluations

if TYPE_CHECKING:
    from newt.report.document import Report
    from newt.report.records import Loaded


def report(
    run_ids: Annotated[list[str] | None, typer.Argument(metavar="RUN...", help="Runs to draw.")] = None,
    experiment: Annotated[str | None, typer.Option(help="mini/NAME or paper/NAME instead of runs.")] = None,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("report"),
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Records (of `newt runs export`, or records/ of a report) instead of a learner."),
    ] = None,
    seeds: SeedsOption = None,
    variant: VariantOption = None,
    folder: FolderOption = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also report.html: all of it in one file, which opens without a server.")
    ] = False,
    text: Annotated[Path | None, typer.Option(help="Markdown file with words of yours, to begin the report.")] = None,
    url: UrlOption = None,
) -> None:
    """Draw runs, or an experiment, from their records: PNG, SVG, CSV and report.md."""
    from newt.report import records  # NumPy, and matplotlib below, take a while to import

    if bool(run_ids) == bool(experiment) and not (source and not experiment):
        raise InvalidInputError("RUN...", "name runs, or an experiment with --experiment NAME, and not both")
    shelf = shelf_of(folder) if experiment else None
    found = shelf.load(experiment) if shelf and experiment else None
    loaded = records.read_folder(source) if source else records.Loaded()
    if shelf is not None and found is not None:
        numbers = numbers_of(found, seeds)
        if source is None:
            api = Api(url)
            standing = Runner(api, found, numbers, variant).look()
            ids = [cell.run.id for cell in standing.cells if cell.run and cell.done]
            losses = any(drawing.kind == "losses" for drawing in found.file.drawings)
            loaded = records.fetch(api, ids, "trainer" if losses else "none")
        else:
            standing = _standing(found, numbers, variant, loaded)
        made = _of_experiment(shelf, found, numbers, variant, standing, loaded)
    else:
        if source is None:
            loaded = records.fetch(Api(url), run_ids or ())
        made = _of_runs(run_ids, loaded)
    if text is not None:
        made = replace(made, introduction=[_read(text), "", *made.introduction])
    files = made.write(output, one_file=html)
    if source is None:
        records.save(list(loaded.records.values()), output / "records")
    for problem in (*loaded.problems, *made.missing()):
        console.print(f"missing: {line(problem)}", highlight=False, soft_wrap=True)
    console.print(str(files[0]), highlight=False, soft_wrap=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InvalidInputError("--text", f"cannot read {path} as text: {error}") from error


def _standing(experiment: Experiment, numbers: list[int], variant: list[str] | None, loaded: Loaded) -> Standing:
    known = loaded.records.values()
    cells = match(experiment.runs(numbers, variant), [record.run for record in known])
    jobs: list[EvaluationJob] = [job for record in known for job in record.evaluations]
    return Standing(cells, match_evaluations(experiment, cells, jobs))


def _of_experiment(
    shelf: Shelf,
    experiment: Experiment,
    numbers: list[int],
    variant: list[str] | None,
    standing: Standing,
    loaded: Loaded,
) -> Report:
    from newt.report.bars import Asked
    from newt.report.document import Report
    from newt.report.lines import lines_of_experiment

    file = experiment.file
    asked: dict[str, Asked] = {}
    for name, evaluation in file.evaluations.items():
        results: dict[str, Evaluation] = {}
        for item in standing.evaluations:
            if item.name == name and item.cell.run and item.job and item.job.result:
                results[item.cell.run.id] = item.job.result
        asked[name] = Asked(evaluation.title, evaluation.variants, results)
    absent = [f"evaluation {item}: {item.state}" for item in standing.evaluations if item.state != "succeeded"]
    variants, comparable = experiment.variants(), experiment.scale_name == "paper"
    sources = [f"{item.title}: {item.source}" for item in file.published_tasks if comparable]
    theirs = {item.title: shelf.published(item.file) for item in file.published_tasks}
    return Report(
        title=f"{experiment.name}: {file.shows}",
        lines=lines_of_experiment(experiment, numbers, standing.cells, loaded.records, variant),
        drawings=[drawing for drawing in file.drawings if not variant or _fits(drawing.variants, variant)],
        introduction=[file.question, "", f"{experiment.scale.description}; seeds {', '.join(map(str, numbers))}"],
        evaluations=asked,
        published=[item for item in file.published if item.variant in variants],
        published_tasks=theirs if comparable else {},
        comparable=comparable,
        notes=[*file.notes, *sources, *notes_of(standing), *loaded.problems, *absent],
    )


def _fits(wanted: list[str] | None, there: list[str]) -> bool:
    return wanted is None or bool(set(wanted) & set(there))


def _of_runs(run_ids: list[str] | None, loaded: Loaded) -> Report:
    from newt.report.document import Report
    from newt.report.lines import lines_of_runs

    chosen = [record for name, record in loaded.records.items() if not run_ids or name in run_ids]
    if not chosen:
        raise InvalidInputError("RUN...", f"no such record: {', '.join(run_ids or ())}")
    lines = lines_of_runs(chosen)
    title = f"{len(chosen)} runs" if len(chosen) > 1 else f"Run {chosen[0].run.id}"
    return Report(title=title, lines=lines, notes=loaded.problems)
