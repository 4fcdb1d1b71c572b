"""`newt experiment`: figures and tables of the paper, from the list of runs that they take to the runs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from newt.cli import experiment_views, watch
from newt.cli.experiment_runner import Runner, alone
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import JsonOption, console, line, list_table, print_json, print_whole
from newt.errors import InvalidInputError
from newt.local import control
from newt.runs.costs import Estimates, Work
from newt.runs.expansion import Experiment
from newt.runs.experiments import MAX_SEEDS, Speeds
from newt.runs.shelf import Shelf
from newt.runs.standing import Standing, match

LOG_EVERY = 12  # looks between two lines where no terminal shows a table
FOLDER = "experiments"

experiments_app = typer.Typer(
    help="Figures and tables of the paper: what they take, run and resumed.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(help="mini/NAME or paper/NAME; `newt experiment list` has all.")]
FolderOption = Annotated[
    Path | None, typer.Option("--folder", help="Folder of experiments. Default: ./experiments, or the source tree's.")
]
SeedsOption = Annotated[
    str | None, typer.Option("--seeds", help="How many, from 1 on, or which: 3, or 1,4,7. Default: the experiment's.")
]
VariantOption = Annotated[list[str] | None, typer.Option("--variant", help="Only this variant; repeatable.")]


@experiments_app.command("list")
def list_experiments(folder: FolderOption = None, json: JsonOption = False) -> None:
    """List all experiments at both scales."""
    shelf = shelf_of(folder)
    found = [shelf.load(name) for name in shelf.names()]
    if json:
        print_json([{"name": e.name, "shows": e.file.shows, "question": e.file.question} for e in found])
        return
    table = list_table("experiment", "variants", "runs", "shows", note="question")
    for experiment in found:
        runs = str(len(experiment.runs()))
        table.add_row(
            experiment.name, str(len(experiment.variants())), runs, experiment.file.shows, experiment.file.question
        )
    print_whole(table)


@experiments_app.command()
def show(name: NameArgument, folder: FolderOption = None, json: JsonOption = False) -> None:
    """Show what an experiment is made of; --json has the whole body of every POST /runs."""
    experiment = shelf_of(folder).load(name)
    runs = experiment.runs()
    if json:
        print_json([{"run": str(run.key), "request": run.request()} for run in runs])
        return
    console.print(f"{experiment.name}: {experiment.file.shows}. {experiment.file.question}", highlight=False)
    table = list_table("variant", "title", "tasks", "runs", note="comes from")
    for variant, what in experiment.variants().items():
        own = [run for seed in experiment.seeds() for run in experiment.runs_of(variant, seed)]
        origin = what.same_as or (f"fine-tunes {what.starts_from}" if what.starts_from else "")
        table.add_row(variant, what.title, str(len(experiment.tasks_of(variant))), str(len(own)), line(origin))
    print_whole(table)
    for key, evaluation, _ in experiment.evaluations():
        console.print(f"evaluation {key}: {evaluation.title}, of {', '.join(evaluation.variants)}", highlight=False)
    for drawing in experiment.file.drawings:
        console.print(f"drawing {drawing.stem}: {drawing.title}", highlight=False)
    for note in experiment.file.notes:
        console.print(f"note: {line(note)}", highlight=False)


@experiments_app.command()
def cost(
    name: NameArgument,
    seeds: SeedsOption = None,
    variant: VariantOption = None,
    env_steps_per_s: Annotated[float | None, typer.Option(min=0.001, help="Speed of collection.")] = None,
    updates_per_s: Annotated[float | None, typer.Option(min=0.001, help="Speed of training.")] = None,
    measured: Annotated[bool, typer.Option("--measured", help="Ask the learner how long runs took.")] = False,
    folder: FolderOption = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Say what an experiment takes: env steps, updates, hours by given, measured or the scale's speeds."""
    experiment = shelf_of(folder).load(name)
    speeds = _speeds(experiment, env_steps_per_s, updates_per_s)
    numbers = numbers_of(experiment, seeds)
    cells = Runner(Api(url), experiment, numbers, variant).look().cells if measured else []
    cells = cells or match(experiment.runs(numbers, variant), [])
    estimates = Estimates(cells, speeds)
    rows: dict[tuple[str, str], list[tuple[Work, float | None]]] = {}
    for cell in cells:
        rows.setdefault((cell.key.experiment, cell.key.variant), []).append(
            (Work.of(cell.planned.spec), estimates.seconds(cell))
        )
    table = list_table("experiment", "variant", "runs", "env steps", "evaluated", "updates", "hours each", "hours")
    told = []
    every = [item for row in rows.values() for item in row]
    for (owner, label), items in [*rows.items(), (("", "all"), every)]:
        steps, evaluated, updates = (
            sum(getattr(work, field) for work, _ in items) for field in ("env_steps", "evaluation_steps", "updates")
        )
        known = [seconds for _, seconds in items if seconds is not None]
        hours = sum(known) / 3600 if len(known) == len(items) else None
        counts = {"runs": len(items), "env_steps": steps, "evaluation_steps": evaluated, "updates": updates}
        told.append({"experiment": owner, "variant": label, **counts, "hours": hours})
        each = f"{hours / len(items):.2f}" if hours is not None and label != "all" else ""
        short = [watch.count(number) for number in (steps, evaluated, updates)]
        table.add_row(owner, label, str(len(items)), *short, each, "-" if hours is None else f"{hours:.1f}")
    if json:
        print_json({"runs": told, "speeds": speeds.model_dump() if speeds else None})
        return
    print_whole(table)
    source = (
        f"speeds: {speeds.machine}" if speeds else "no speeds are known: give --env-steps-per-s and --updates-per-s"
    )
    console.print(f"{source}; one run at a time", highlight=False)


@experiments_app.command()
def run(
    name: NameArgument,
    seeds: SeedsOption = None,
    variant: VariantOption = None,
    active: Annotated[int, typer.Option(min=1, max=100, help="Runs queued or at work at one time.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Resume failed and cancelled runs, each once.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Stay until all runs have ended.")] = True,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 5.0,
    folder: FolderOption = None,
    url: UrlOption = None,
) -> None:
    """Submit the runs and evaluations that are missing, and wait. Started again, it goes on where it was."""
    experiment = shelf_of(folder).load(name)
    api = Api(url)
    runner = Runner(api, experiment, numbers_of(experiment, seeds), variant, active, resume)
    with alone(api.url, control.default_home()):
        if not follow:
            standing = runner.look()
            _say(runner.advance(standing))
            standing = runner.look()
        else:
            standing = _follow(runner, experiment, every)
    console.print(experiment_views.view(experiment, standing))
    for what, why in runner.refused.items():
        console.print(f"refused: {what}: {line(why)}", highlight=False, soft_wrap=True)
    ended = all(cell.done for cell in standing.cells) and all(e.state == "succeeded" for e in standing.evaluations)
    if follow and not ended:
        console.print("Not all runs have succeeded; --resume resumes those that failed or were cancelled.")
    if runner.refused or (follow and not ended):
        raise typer.Exit(1)


@experiments_app.command()
def status(
    name: NameArgument,
    seeds: SeedsOption = None,
    variant: VariantOption = None,
    folder: FolderOption = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show which runs there are, which are missing, and how long it will take."""
    experiment = shelf_of(folder).load(name)
    standing = Runner(Api(url), experiment, numbers_of(experiment, seeds), variant).look()
    if json:
        print_json(experiment_views.told(experiment, standing))
        return
    console.print(experiment_views.view(experiment, standing))


def shelf_of(folder: Path | None) -> Shelf:
    """The folder of experiments: the one that is named, that of this folder, or that of the source tree."""
    if folder is None:
        nearby, tree = Path(FOLDER), Path(__file__).resolve().parents[2] / FOLDER
        folder = nearby if nearby.is_dir() or not tree.is_dir() else tree
    return Shelf(folder)


def parse_seeds(text: str) -> list[int]:
    """`3` is 1, 2, 3; `1,4,7` are these. Raises InvalidInputError for anything else."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if "," not in text and numbers and 1 <= numbers[0] <= MAX_SEEDS:
        return list(range(1, numbers[0] + 1))
    if not numbers or "," not in text or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise InvalidInputError("--seeds", f"got {text!r}, expected a number from 1 to {MAX_SEEDS}, or a list: 1,4,7")
    return numbers


def numbers_of(experiment: Experiment, seeds: str | None) -> list[int]:
    """The seeds that were asked for, or the experiment's own."""
    return parse_seeds(seeds) if seeds is not None else experiment.seeds()


def _speeds(experiment: Experiment, env_steps_per_s: float | None, updates_per_s: float | None) -> Speeds | None:
    if (env_steps_per_s is None) != (updates_per_s is None):
        raise InvalidInputError("--env-steps-per-s", "goes with --updates-per-s; give both or neither")
    if env_steps_per_s is None or updates_per_s is None:
        return experiment.scale.speeds
    together = experiment.scale.speeds.together if experiment.scale.speeds else False
    return Speeds(env_steps_per_s=env_steps_per_s, updates_per_s=updates_per_s, together=together, machine="as given")


def _follow(runner: Runner, experiment: Experiment, every_s: float) -> Standing:
    standing = Standing([])
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            for seen, done in runner.follow(every_s):
                _say(done)
                standing = seen if seen.cells else standing
                live.update(experiment_views.view(experiment, standing))
        return standing
    for look, (seen, done) in enumerate(runner.follow(every_s)):
        _say(done)
        standing = seen if seen.cells else standing
        if look % LOG_EVERY == 0 and standing.cells:
            console.print(experiment_views.summary(experiment, standing), highlight=False, soft_wrap=True)
    return standing


def _say(done: Sequence[str]) -> None:
    for words in done:
        console.print(words, highlight=False, markup=False, soft_wrap=True)
