"""`newt demos import` and `export`: recordings and published files into and out of the replay service.

What reads and writes the files takes long to import, torch above all: the commands import it themselves.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from newt.cli.checkpoints import ForceOption, check_output
from newt.cli.rest import UrlOption
from newt.cli.task_names import TaskNames
from newt.cli.terminal import console, name_table
from newt.errors import AlreadyExistsError, InvalidInputError, NewtError, NotFoundError, UnavailableError
from newt.local import control
from newt.local.stack import is_replay
from newt.recordings.formats import EXPORTS, FOLDERS, PUBLISHED, open_recording, writer_of
from newt.runs.sections import SET_NAME
from newt.tasks.pace import DEFAULT_STEPS_PER_S, real_time
from newt.tasks.registry import Task

if TYPE_CHECKING:
    from newt.client.shards import Replay
    from newt.recordings.importing import Judged, Recordings
    from newt.vision import ImageEncoder

_APPEND_TIMEOUT_S = 60.0

ReplayOption = Annotated[
    str | None,
    typer.Option(
        "--replay", help="Replay service, host:port; several with commas. Default: $NEWT_REPLAY or the stack's."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("import")(import_files)
    app.command("export")(export_file)


def import_files(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Recordings (docs/demonstrations.md), or published files, named after their task: TASK.pt."
        ),
    ],
    set_: Annotated[str, typer.Option("--set", help="Demonstration set to add to; created if it is new.")],
    task: Annotated[
        str | None, typer.Option("--task", help="The task, where files do not tell or have others.")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="TOML file that says which columns, actions and tasks of a recording are which.")
    ] = None,
    all_episodes: Annotated[
        bool,
        typer.Option(
            "--all-episodes",
            help="Keep episodes that are not good enough; of published ManiSkill files more than published runs use.",
        ),
    ] = False,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Keep image features.")] = True,
    strips: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the frames of published files, TASK-0.png, ...: compute image features of them."
        ),
    ] = None,
    image_encoder: Annotated[
        str, typer.Option(envvar="NEWT_LEARNER_IMAGE_ENCODER", help="For --strips: as the learner's setting.")
    ] = "facebook/dinov2-base",
    device: Annotated[str, typer.Option(help="Torch device, for --strips.")] = "cpu",
    replay: ReplayOption = None,
    url: UrlOption = None,
) -> None:
    """Add demonstrations of your own, or published ones, to a set. A file that is imported again adds nothing."""
    from newt.client.shards import replay_client
    from newt.recordings.importing import Recordings
    from newt.recordings.mapping import read_map
    from newt.recordings.recorded import TaskShape

    _check_set(set_)
    names = TaskNames(url)
    published = [Path(file) for file in files if file.endswith(PUBLISHED)]
    recorded = [file for file in files if not file.endswith(PUBLISHED)]
    if recorded and strips:
        raise InvalidInputError("--strips", f"is for published files, got {recorded[0]}")
    if columns is not None and not recorded:
        raise InvalidInputError("--columns", "is for recordings; published files (.pt) have one layout")
    sources = _tasks_of(published, task, names)
    recordings = Recordings(
        [open_recording(file) for file in recorded],
        lambda name: TaskShape(name, names.get(name).obs_dim, names.get(name).action_dim),
        task=task,
        renamed=read_map(columns) if columns else None,
        take_all=all_episodes,
    )
    judged = recordings.judge()  # All is checked before anything is stored.
    table = name_table("task", "episodes", "new", "file")
    try:
        with replay_client(_replay_address(replay)) as client:
            if sources:
                encoder = _encoder(image_encoder, device) if strips else None
                _import_published(client, sources, set_, table, images, all_episodes, strips, encoder)
            _import_recorded(client, recordings, recorded, judged, set_, table, images)
    except NewtError:
        if table.row_count:
            console.print(table)
            console.print("Stopped here; these files are in the set. Importing them again is harmless.")
        raise
    console.print(table)
    left_out = sum(not one.kept for one in judged.values())
    if left_out:
        console.print(f"{left_out} episodes are not good enough and were left out; --all-episodes keeps them")


def _import_published(
    client: Replay,
    sources: Sequence[tuple[Path, Task]],
    set_: str,
    table: Table,
    images: bool,
    all_episodes: bool,
    strips: Path | None,
    encoder: ImageEncoder | None,
) -> None:
    from newt.official.demos import MANISKILL_EPISODES, read_demos
    from newt.official.strips import with_strip_features

    for path, its_task in sources:
        episodes = read_demos(
            path, its_task, images=images, maniskill_limit=None if all_episodes else MANISKILL_EPISODES
        )
        if encoder and strips:
            episodes = with_strip_features(episodes, strips, encoder)
        replies = [client.append(e, demo_set=set_, timeout_s=_APPEND_TIMEOUT_S) for e in episodes]
        new = sum(not reply.duplicate for reply in replies)
        table.add_row(its_task.name, str(len(episodes)), str(new), str(path))


def _import_recorded(
    client: Replay,
    recordings: Recordings,
    files: Sequence[str],
    judged: Mapping[tuple[int, int], Judged],
    set_: str,
    table: Table,
    images: bool,
) -> None:
    new: Counter[tuple[int, str]] = Counter()
    for number, episode in recordings.episodes():
        stored = episode if images else replace(episode, image=None, image_encoder="")
        reply = client.append(stored, demo_set=set_, timeout_s=_APPEND_TIMEOUT_S)
        new[number, episode.task] += not reply.duplicate
    kept = Counter((number, one.task) for (number, _), one in judged.items() if one.kept)
    for (number, name), count in sorted(kept.items()):
        table.add_row(name, str(count), str(new[number, name]), files[number])


def export_file(
    out: Annotated[Path, typer.Argument(help="What to write; loaders of published files expect TASK.pt.")],
    set_: Annotated[str, typer.Option("--set", help="Demonstration set.")],
    task: Annotated[str | None, typer.Option("--task", help="One of its tasks. Default: all of them.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help=f"{', '.join(EXPORTS)}. Default: npz for OUT.npz, else pt.")
    ] = None,
    force: ForceOption = False,
    replay: ReplayOption = None,
) -> None:
    """Write the episodes of a set as a recording, or those of a task as a published file."""
    from newt.client.shards import replay_client

    _check_set(set_)
    kind = format_ or ("npz" if out.suffix == ".npz" else "pt")
    if kind not in EXPORTS:
        raise InvalidInputError("--format", f"got {kind!r}, expected one of {', '.join(EXPORTS)}")
    check_output(out, force)
    place = FOLDERS.get(kind)
    if out.exists() and not (out.is_file() if place is None else (out / place).is_file()):
        raise AlreadyExistsError(f"{out} is not what --force could replace: no {kind} recording; choose another name")
    with replay_client(_replay_address(replay)) as client:
        (held,) = client.list_demo_sets(set_)
        there = [one.task for one in held.tasks]
        if task is not None and task not in there:
            raise NotFoundError(f"set {set_!r} has no episodes of {task}; it has {', '.join(there) or 'none'}")
        if task is None and kind == "pt" and len(there) != 1:
            raise InvalidInputError("--task", f"a published file has one task, the set has {', '.join(there)}")
        write = writer_of(kind, _pace(there if task is None else [task]))
        count = write(out, client.read_episodes(demo_set=set_, task=task or ""))
    console.print(f"{count} episodes of {task or ', '.join(there)} written to {out}")


def _pace(tasks: Sequence[str]) -> float:
    names = TaskNames()
    try:
        return real_time([names.get(task) for task in tasks])
    except InvalidInputError:  # a task of somebody's own, whose simulator is not here to tell
        return DEFAULT_STEPS_PER_S


def _encoder(source: str, device: str) -> ImageEncoder:
    from newt.tasks.encoders import EncoderUnavailableError
    from newt.vision import ImageEncoder

    try:
        return ImageEncoder(source, device)
    except (EncoderUnavailableError, ValueError) as error:
        raise InvalidInputError("--image-encoder", str(error)) from error


def _tasks_of(files: Sequence[Path], task: str | None, names: TaskNames) -> list[tuple[Path, Task]]:
    if task is not None and len(files) > 1:
        raise InvalidInputError(
            "--task", f"got {len(files)} files, expected one; several are told apart by their names"
        )
    sources = [(path, names.get(task or path.stem)) for path in files]
    return sorted(sources, key=lambda pair: pair[1].index if pair[1].index is not None else 10**6)


def _check_set(name: str) -> None:
    if not re.fullmatch(SET_NAME, name):
        raise InvalidInputError("--set", f"got {name!r}, expected 1-128 letters, digits or ._- after a first one")


def _replay_address(given: str | None) -> str:
    if given or os.environ.get("NEWT_REPLAY"):
        return given or os.environ["NEWT_REPLAY"]
    state = control.read(control.default_home())
    services = state.services if state and state.state == "running" else []
    addresses = [str(service["address"]) for service in services if is_replay(str(service["name"]))]
    if not addresses:
        raise UnavailableError(
            "no local stack is running; start one with `newt up`, or name a service with --replay or $NEWT_REPLAY"
        )
    return ",".join(addresses)
