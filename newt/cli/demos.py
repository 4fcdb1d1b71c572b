"""`newt demos`: demonstration sets through the REST API; published files in and out."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.table import Table

from newt.cli import demo_files, demo_recording, events
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import JsonOption, console, name_table, print_broken, print_json
from newt.errors import NewtError
from newt.runs.demos import DemoCollection, DemoSetInfo, DemoSetList, FeatureDemosRequest
from newt.runs.record import Deleted
from newt.runs.stored import read

demos_app = typer.Typer(
    help="Collect, list and delete demonstration sets; import and export published files.", no_args_is_help=True
)
demo_files.register(demos_app)
demo_recording.register(demos_app)

NameOption = Annotated[str, typer.Option("--name", help="Name of the new set.")]
EpisodesOption = Annotated[int, typer.Option(help="Demonstrations per task.")]
FollowOption = Annotated[bool, typer.Option("--follow/--no-follow", help="Wait until the set is whole.")]


@demos_app.command("list")
def list_sets(json: JsonOption = False, url: UrlOption = None) -> None:
    """List the demonstration sets."""
    listed = read(DemoSetList, Api(url).get("/demos"))
    if json:
        print_json(listed)
        return
    table = name_table("set", "state", "from", "tasks", "episodes", "return", "score", "success", "MB")
    for info in listed.demo_sets:
        episodes = sum(task.episodes for task in info.tasks)
        successes = [task.mean_success for task in info.tasks if task.mean_success is not None]
        table.add_row(
            info.name,
            _state(info),
            _origin(info.collection),
            str(len(info.tasks)),
            str(episodes),
            _mean([task.mean_return for task in info.tasks]),
            _mean([task.mean_score for task in info.tasks]),
            _mean(successes),
            f"{info.size_bytes / 1e6:.1f}",
        )
    console.print(table)
    print_broken(listed.broken)


@demos_app.command()
def show(name: str, json: JsonOption = False, url: UrlOption = None) -> None:
    """Show a demonstration set task by task."""
    info = read(DemoSetInfo, Api(url).get(f"/demos/{name}"))
    if json:
        print_json(info)
        return
    console.print(f"{info.name}: {_state(info)}, {_origin(info.collection)}")
    if info.collection and info.collection.error:
        console.print(f"[red]{info.collection.error}[/red]")
    console.print(_table(info))


@demos_app.command()
def scripted(
    tasks: Annotated[list[str], typer.Option("--tasks", help="Task name, glob, domain or set; repeatable.")],
    name: NameOption,
    episodes: EpisodesOption = 20,
    disturbance: Annotated[
        float, typer.Option(help="Largest noise on their actions, in bursts, from which they recover; 0 to 1.")
    ] = 0.0,
    follow: FollowOption = True,
    url: UrlOption = None,
) -> None:
    """Collect a set from scripted experts (POST /demos)."""
    request: dict[str, object] = {"name": name, "tasks": tasks, "episodes": episodes}
    if disturbance:  # A learner of before knows no such field.
        request["disturbance"] = disturbance
    _collect(Api(url), "/demos", request, follow=follow)


@demos_app.command()
def collect(
    run_id: str,
    name: NameOption,
    tasks: Annotated[list[str] | None, typer.Option("--tasks", help="One of the run's tasks; repeatable.")] = None,
    episodes: EpisodesOption = 20,
    mode: Annotated[
        str | None, typer.Option(help="planner or policy. Default: as the agent was trained to act.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Name of a checkpoint, newest or best. Default: newest.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Origin of the episodes' seeds.")] = 0,
    follow: FollowOption = True,
    url: UrlOption = None,
) -> None:
    """Collect a set from the agent of a run (POST /runs/RUN_ID/demos)."""
    request: dict[str, object] = {
        "name": name,
        "tasks": tasks or None,
        "episodes": episodes,
        "checkpoint": checkpoint,
        "seed": seed,
    }
    if mode is not None:
        request["mode"] = mode
    _collect(Api(url), f"/runs/{run_id}/demos", request, follow=follow)


@demos_app.command()
def features(
    source: Annotated[str, typer.Argument(help="Set without image features; it stays as it is.")],
    name: NameOption,
    tasks: Annotated[list[str] | None, typer.Option("--tasks", help="One of the set's tasks; repeatable.")] = None,
    frames: Annotated[int, typer.Option(help="Frames that an agent sees at once: vision.frames of its run.")] = 1,
    follow: FollowOption = True,
    url: UrlOption = None,
) -> None:
    """Compute image features by playing a set's episodes again; makes a new set (POST /demos/features)."""
    request: dict[str, object] = {"name": name, "source": source, "tasks": tasks or None, "frames": frames}
    _collect(Api(url), "/demos/features", request, follow=follow)


@demos_app.command()
def cancel(name: str, url: UrlOption = None) -> None:
    """Stop a collection; what it has stored is removed."""
    console.print(read(DemoCollection, Api(url).post(f"/demos/{name}/cancel")).state)


@demos_app.command()
def delete(name: str, url: UrlOption = None) -> None:
    """Delete a demonstration set that no run uses."""
    removed = read(Deleted, Api(url).delete(f"/demos/{name}"))
    console.print(f"set {name} with {removed.episodes} episodes deleted")


def _collect(api: Api, path: str, request: dict[str, object], *, follow: bool) -> None:
    collection = read(DemoCollection, api.post(path, request))
    name = collection.name
    console.print(f"set {name}: {len(collection.tasks)} tasks")
    if not follow:
        return
    with console.status(f"collecting {name} ...") as status:
        for info in events.follow(
            api,
            f"/demos/{name}",
            partial(read, DemoSetInfo),
            lambda info, told: info.model_copy(update={"collection": read(DemoCollection, told)}),
            lambda info: info.collection is None or not info.collection.under_way,
        ):
            now = info.collection
            if now is not None:
                waiting = f", waiting for {now.waiting_on}" if now.waiting_on else ""
                status.update(f"collecting {name}: {now.progress:.0%}{waiting}")
    if not info.usable:
        raise NewtError(f"the collection of {name} {now.state if now else 'is gone'}: {(now and now.error) or ''}")
    console.print(_table(info))


def _table(info: DemoSetInfo) -> Table:
    table = name_table("task", "episodes", "rows", "return", "score", "success", "image", "missing")
    yields = info.collection.yields if info.collection else {}
    held = {task.task: task for task in info.tasks}
    for name in list(held) + [name for name in yields if name not in held]:
        task, found = held.get(name), yields.get(name)
        counts = (str(task.episodes), f"{task.rows:,}") if task else ("0", "0")
        means = (task.mean_return, task.mean_score, task.mean_success) if task else (None, None, None)
        image = str(task.image_dim) if task and task.image_dim else "-"
        table.add_row(name, *counts, *(_number(mean) for mean in means), image, (found and found.missing) or "")
    return table


def _state(info: DemoSetInfo) -> str:
    if info.collection is None:
        return "usable"
    state = info.collection.state
    return "usable" if info.usable else f"{state} {info.collection.progress:.0%}" if state == "collecting" else state


def _origin(collection: DemoCollection | None) -> str:
    if collection is None:
        return "imported, or filled by runs"
    if collection.source == "scripted":
        return "scripted experts"
    if isinstance(collection.request, FeatureDemosRequest):
        return f"{collection.request.source}, with image features"
    return f"{collection.run_id}, checkpoint {collection.checkpoint}"


def _mean(values: list[float]) -> str:
    return _number(sum(values) / len(values) if values else None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
