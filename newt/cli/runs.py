"""`newt train`, `newt runs`: runs, through the REST API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from newt.cli import watch
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import console, name_table
from newt.errors import InvalidInputError
from newt.runs.record import Deleted, Run, RunList, RunResults, RunState

runs_app = typer.Typer(
    help="List, watch, cancel, resume, delete runs.", no_args_is_help=False, invoke_without_command=True
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(train)
    app.add_typer(runs_app, name="runs")


def train(
    tasks: Annotated[list[str] | None, typer.Argument(help="Task names, globs, domains or sets.")] = None,
    preset: Annotated[str | None, typer.Option(help="default (the published run) or laptop.")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="Checkpoint to fine-tune: RUN (its newest), RUN/NAME or imported/NAME.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, as path=value: schedule.total_env_steps=50000.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="JSON file with the request; the options win.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Watch the run until it ends.")] = True,
    url: UrlOption = None,
) -> None:
    """Start a run (POST /runs) and watch it."""
    request: dict[str, Any] = _read_json(file) if file else {}
    if tasks:
        request["tasks"] = tasks
    if preset:
        request["preset"] = preset
    if init_from:
        request["init_from"] = init_from
    for assignment in set_ or []:
        _assign(request, assignment)
    api = Api(url)
    run = Run.model_validate(api.post("/runs", request))
    console.print(f"run {run.id}: {len(run.tasks)} tasks")
    if follow:
        _finish(watch.follow(api, run.id, console))


@runs_app.callback()
def list_runs(context: typer.Context, url: UrlOption = None) -> None:
    """List all runs."""
    if context.invoked_subcommand:
        return
    table = name_table("run", "state", "tasks", "env steps", "updates", "stage", "error")
    for run in RunList.model_validate(Api(url).get("/runs")).runs:
        progress = run.progress
        table.add_row(
            run.id,
            run.state.value,
            str(len(run.tasks)),
            f"{progress.env_steps:,}/{progress.total_env_steps:,}",
            f"{progress.updates:,}/{progress.total_updates:,}",
            progress.stage,
            run.error or "",
        )
    console.print(table)


@runs_app.command()
def show(run_id: str, url: UrlOption = None) -> None:
    """Show a run: state, progress and results so far."""
    api = Api(url)
    run = Run.model_validate(api.get(f"/runs/{run_id}"))
    console.print(watch.progress_table(run))
    console.print(watch.results_table(RunResults.model_validate(api.get(f"/runs/{run_id}/results"))))


@runs_app.command("watch")
def watch_run(run_id: str, url: UrlOption = None) -> None:
    """Watch a run until it ends."""
    _finish(watch.follow(Api(url), run_id, console))


@runs_app.command()
def cancel(run_id: str, url: UrlOption = None) -> None:
    """Stop a run; it writes a checkpoint and can be resumed."""
    console.print(Run.model_validate(Api(url).post(f"/runs/{run_id}/cancel")).state.value)


@runs_app.command()
def resume(run_id: str, url: UrlOption = None) -> None:
    """Continue a failed or cancelled run from its last checkpoint."""
    console.print(Run.model_validate(Api(url).post(f"/runs/{run_id}/resume")).state.value)


@runs_app.command("delete-episodes")
def delete_episodes(run_id: str, url: UrlOption = None) -> None:
    """Delete the episodes that an ended run has collected; its checkpoints and results stay."""
    removed = Deleted.model_validate(Api(url).delete(f"/runs/{run_id}/episodes"))
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
    download: Annotated[str | None, typer.Option(help="Name of a checkpoint to download.")] = None,
    to: Annotated[Path | None, typer.Option(help="File to write. Default: RUN-CHECKPOINT in this folder.")] = None,
    url: UrlOption = None,
) -> None:
    """List a run's checkpoints, or download one."""
    api = Api(url)
    if download:
        target = to or Path(f"{run_id}-{download}")
        api.download(f"/runs/{run_id}/checkpoints/{download}", target)
        console.print(str(target))
        return
    table = name_table("checkpoint", "env steps", "updates", "MB", "written")
    for item in api.get(f"/runs/{run_id}/checkpoints")["checkpoints"]:
        size = f"{item['size_bytes'] / 1e6:.1f}"
        table.add_row(item["name"], f"{item['env_steps']:,}", f"{item['updates']:,}", size, item["created_at"])
    console.print(table)


def _finish(run: Run) -> None:
    if run.state is not RunState.SUCCEEDED:
        console.print(f"[red]run {run.id} {run.state.value}: {run.error or ''}[/red]")
        raise typer.Exit(1)
    console.print(f"run {run.id} succeeded; its files are in {run.directory}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInputError("--file", f"cannot read {path} as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInputError("--file", f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def _assign(request: dict[str, Any], assignment: str) -> None:
    """Puts `a.b=value` into the nested request; the value is JSON, or else a plain string."""
    path, equals, text = assignment.partition("=")
    *parents, leaf = path.split(".")
    if not equals or not leaf:
        raise InvalidInputError("--set", f"got {assignment!r}, expected path=value")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    here = request
    for parent in parents:
        here = here.setdefault(parent, {})
        if not isinstance(here, dict):
            raise InvalidInputError("--set", f"{path}: {parent} is not a section")
    here[leaf] = value
