"""`newt train`, `newt runs`: runs, through the REST API."""

from __future__ import annotations

import json as json_format
import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from newt.cli import exports, plots, watch
from newt.cli.rest import Api, UrlOption
from newt.cli.stack import pythons_of
from newt.cli.terminal import JsonOption, console, line, list_table, name_table, print_broken, print_json, print_whole
from newt.errors import InvalidInputError
from newt.local import control
from newt.local.stack import StackConfig
from newt.local.state import default_home
from newt.own import sources
from newt.runs.record import Deleted, Run, RunList, RunResults, RunState
from newt.runs.stored import read
from newt.tasks.registry import Task, UnknownTaskError, select_tasks

runs_app = typer.Typer(
    help="List, watch, cancel, resume, delete runs.", no_args_is_help=False, invoke_without_command=True
)

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, as path=value: schedule.total_env_steps=50000.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(train)
    for command in (plots.plot, exports.export, exports.follow):
        runs_app.command()(command)
    app.add_typer(runs_app, name="runs")


def train(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(help="Task names, globs, domains or sets; or a folder, file, gym:ID, module:NAME of your own."),
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="newt, tdmpc2, model-based-pretraining, bc, ...: docs/algorithms.md.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="default (the published run), better or laptop.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Checkpoint to fine-tune: RUN (its newest), RUN/NAME, RUN/best or imported/NAME.")
    ] = None,
    set_: SetOption = None,
    file: Annotated[Path | None, typer.Option("--file", help="JSON file with the request; the options win.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Watch the run until it ends.")] = True,
    url: UrlOption = None,
) -> None:
    """Start a run (POST /runs) and watch it.

    With tasks of your own, all services are started for the run, with a simulator of them, and stopped after it.
    """
    own = [word for word in tasks or () if sources.is_source(word)]
    tasks = [word for word in tasks or () if word not in own]
    request: dict[str, Any] = _read_json(file) if file else {}
    if tasks and not own:
        request["tasks"] = tasks
    if preset:
        request["preset"] = preset
    if init_from:
        request["init_from"] = init_from
    assign(request, [*([f"algorithm.name={algorithm}"] if algorithm else []), *(set_ or ())])
    if own:
        if url is not None or not follow:
            raise InvalidInputError(
                "--url" if url is not None else "--no-follow",
                f"{own[0]} is trained on by services that live as long as this command; start them with "
                f"`newt up --env {own[0]}`, and name the task",
            )
        _train_own(request, own, tasks)
        return
    api = Api(url)
    run = read(Run, api.post("/runs", request))
    console.print(f"run {run.id}: {len(run.tasks)} tasks")
    if follow:
        _finish(api, watch.follow(api, run.id, console))


def _train_own(request: dict[str, Any], own: Sequence[str], ours: list[str]) -> None:
    """Trains on own tasks, and on some of ours beside them, with services of its own in the usual folder."""
    named = sources.names(map(sources.absolute, own))
    pythons = pythons_of(named)
    declared = [task.name for name, source in named.items() for task in sources.declared(source, pythons[name])]
    domains = tuple(sorted({task.domain for task in tasks_of(ours)})) if ours else ()
    request["tasks"] = [*declared, *ours]
    home, folder = default_home(), os.getcwd()
    console.print(f"Starting Redis, {len(domains) + len(named)} simulator services, replay, planner and learner ...")
    config = StackConfig(
        home=home,
        domains=domains,
        fixed_ports=False,
        owner_pid=os.getpid(),
        sources=named,
        pythons=pythons,
        source_folder=folder,
    )
    state = control.up(config)
    try:
        api = Api(state.rest_url)
        run = read(Run, api.post("/runs", request))
        console.print(f"run {run.id}: {len(run.tasks)} tasks")
        _finish(api, watch.follow(api, run.id, console))
    finally:
        control.down(home)
    again = " ".join(f"--env {shlex.quote(source)}" for source in own)
    console.print(f"To go on with it: newt up {again}; newt eval {run.id}", soft_wrap=True, highlight=False)


@runs_app.callback()
def list_runs(context: typer.Context, json: JsonOption = False, url: UrlOption = None) -> None:
    """List all runs, a line each; `newt runs show RUN` has the rest."""
    if context.invoked_subcommand:
        return
    listed = read(RunList, Api(url).get("/runs"))
    if json:
        print_json(listed)
        return
    owned = any(run.owner for run in listed.runs)
    table = list_table("run", *(["owner"] if owned else []), "state", "tasks", "env steps", note="stage, or error")
    for run in listed.runs:
        progress = run.progress
        steps = f"{watch.count(progress.env_steps)}/{watch.count(progress.total_env_steps)}"
        note = run.error or ("" if run.state.finished else progress.stage)
        whose = [run.owner or ""] if owned else []
        table.add_row(run.id, *whose, run.state.value, str(len(run.tasks)), steps, line(note))
    print_whole(table)
    print_broken(listed.broken)


@runs_app.command()
def show(run_id: str, json: JsonOption = False, url: UrlOption = None) -> None:
    """Show a run: state, progress and results so far."""
    api = Api(url)
    run = read(Run, api.get(f"/runs/{run_id}"))
    results = read(RunResults, api.get(f"/runs/{run_id}/results"))
    if json:
        print_json({"run": run.model_dump(mode="json"), "results": results.model_dump(mode="json")})
        return
    console.print(watch.progress_table(run))
    console.print(watch.results_table(results))


@runs_app.command("watch")
def watch_run(run_id: str, url: UrlOption = None) -> None:
    """Watch a run until it ends."""
    api = Api(url)
    _finish(api, watch.follow(api, run_id, console))


@runs_app.command()
def cancel(run_id: str, url: UrlOption = None) -> None:
    """Stop a run; it writes a checkpoint and can be resumed."""
    console.print(read(Run, Api(url).post(f"/runs/{run_id}/cancel")).state.value)


@runs_app.command()
def resume(run_id: str, url: UrlOption = None) -> None:
    """Continue a failed or cancelled run from its last checkpoint."""
    console.print(read(Run, Api(url).post(f"/runs/{run_id}/resume")).state.value)


@runs_app.command()
def note(
    run_id: str,
    text: Annotated[str | None, typer.Argument(help="Notes in Markdown, in place of what was there.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tags, in place of those there were; may be repeated.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all tags and notes first.")] = False,
    url: UrlOption = None,
) -> None:
    """Show the tags and notes of a run, or write them; they change nothing in it."""
    cleared: dict[str, Any] = {"tags": [], "notes": ""} if clear else {}
    given = {name: value for name, value in {"tags": tag, "notes": text}.items() if value is not None}
    run = read(Run, Api(url).patch(f"/runs/{run_id}", {**cleared, **given}))
    console.print(f"tags: {', '.join(run.tags) or 'none'}", markup=False, highlight=False, soft_wrap=True)
    console.print(run.notes, markup=False, highlight=False, soft_wrap=True)


@runs_app.command("delete-episodes")
def delete_episodes(run_id: str, url: UrlOption = None) -> None:
    """Delete the episodes that an ended run has collected; its checkpoints and results stay."""
    removed = read(Deleted, Api(url).delete(f"/runs/{run_id}/episodes"))
    console.print(f"{removed.episodes} episodes deleted")


@runs_app.command()
def delete(
    run_ids: Annotated[list[str], typer.Argument(help="Runs that have ended.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: UrlOption = None,
) -> None:
    """Remove finished runs: replay buffers, checkpoints, evaluations and records."""
    if not yes:
        typer.confirm(f"Remove {', '.join(run_ids)} with all checkpoints?", abort=True)
    api = Api(url)
    for run_id in run_ids:
        api.delete(f"/runs/{run_id}")
        console.print(f"{run_id} deleted")


@runs_app.command()
def checkpoints(
    run_id: str,
    download: Annotated[str | None, typer.Option(help="Name of a checkpoint to download, newest or best.")] = None,
    to: Annotated[Path | None, typer.Option(help="File to write. Default: RUN-CHECKPOINT in this folder.")] = None,
    json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """List a run's checkpoints with the scores of its own evaluations, or download one."""
    api = Api(url)
    if download:
        target = to or Path(f"{run_id}-{download}")
        api.download(f"/runs/{run_id}/checkpoints/{download}", target)
        console.print(str(target))
        return
    listed = api.get(f"/runs/{run_id}/checkpoints")
    if json:
        print_json(listed)
        return
    table = name_table("checkpoint", "score", "env steps", "updates", "MB", "written")
    for item in listed["checkpoints"]:
        size = f"{item['size_bytes'] / 1e6:.1f}"
        score = "-" if item["score"] is None else f"{item['score']:.3f}{' best' if item['best'] else ''}"
        table.add_row(item["name"], score, f"{item['env_steps']:,}", f"{item['updates']:,}", size, item["created_at"])
    console.print(table)


def _finish(api: Api, run: Run) -> None:
    if run.state is not RunState.SUCCEEDED:
        console.print(f"[red]run {run.id} {run.state.value}: {escape(run.error or '')}[/red]", soft_wrap=True)
        raise typer.Exit(1)
    console.print(watch.results_table(read(RunResults, api.get(f"/runs/{run.id}/results"))))
    console.print(f"run {run.id} succeeded; its files are in {run.directory}", soft_wrap=True, highlight=False)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json_format.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInputError("--file", f"cannot read {path} as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInputError("--file", f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def assign(request: dict[str, Any], assignments: Sequence[str]) -> None:
    """Puts each `a.b=value` of `--set` into the nested request; a value is JSON, or else a plain string.

    Raises:
        InvalidInputError: Not of that form, a number that JSON does not have (NaN, Infinity), or a path through a value
            that has no fields.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        *parents, leaf = path.split(".")
        if not equals or not all((*parents, leaf)):
            raise InvalidInputError("--set", f"got {assignment!r}, expected path=value")
        here = request
        for parent in parents:
            here = here.setdefault(parent, {})
            if not isinstance(here, dict):
                raise InvalidInputError("--set", f"{path}: {parent} is not a section")
        here[leaf] = _value(path, text)


def _value(path: str, text: str) -> Any:
    def refuse(number: str) -> None:
        raise InvalidInputError("--set", f"{path}: {number} is no number that can be sent; expected a finite one")

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            refuse(digits)
        return value

    try:
        return json_format.loads(text, parse_constant=refuse, parse_float=number)
    except RecursionError:
        raise InvalidInputError("--set", f"{path}: nested too deep") from None
    except ValueError:
        return text


def tasks_of(specs: object) -> list[Task]:
    """The tasks that a request selects.

    Raises:
        InvalidInputError: It selects none, or is no list of strings.
    """
    if not isinstance(specs, list) or not specs or not all(isinstance(spec, str) for spec in specs):
        raise InvalidInputError("tasks", f"got {specs!r}, expected a list of task names, globs, domains or sets")
    try:
        return select_tasks(specs)
    except UnknownTaskError as error:
        raise InvalidInputError("tasks", str(error)) from error
