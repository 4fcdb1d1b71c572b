"""`newt demos import` and `export`: published demonstration files into and out of the replay service.

What reads and writes the files needs torch, which takes seconds to import: the commands import it themselves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newt.cli.checkpoints import ForceOption, check_output
from newt.cli.terminal import console, name_table
from newt.errors import InvalidInputError, NewtError, NotFoundError, UnavailableError
from newt.local import control
from newt.runs.sections import SET_NAME
from newt.tasks.registry import Task, UnknownTaskError, get_task

if TYPE_CHECKING:
    from newt.vision import ImageEncoder

_APPEND_TIMEOUT_S = 60.0

ReplayOption = Annotated[
    str | None, typer.Option("--replay", help="Replay service, host:port. Default: $NEWT_REPLAY or the local stack.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("import")(import_files)
    app.command("export")(export_file)


def import_files(
    files: Annotated[list[Path], typer.Argument(help="Published files, one per task, named after it: TASK.pt.")],
    set_: Annotated[str, typer.Option("--set", help="Demonstration set to add to; created if it is new.")],
    task: Annotated[str | None, typer.Option("--task", help="The task, if a single file has another name.")] = None,
    all_episodes: Annotated[
        bool, typer.Option("--all-episodes", help="Keep more episodes of ManiSkill tasks than published runs use.")
    ] = False,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Keep image features.")] = True,
    strips: Annotated[
        Path | None,
        typer.Option(help="Folder with the frames, TASK-0.png, ...: compute image features of them."),
    ] = None,
    image_encoder: Annotated[
        str, typer.Option(envvar="NEWT_LEARNER_IMAGE_ENCODER", help="For --strips: as the learner's setting.")
    ] = "facebook/dinov2-base",
    device: Annotated[str, typer.Option(help="Torch device, for --strips.")] = "cpu",
    replay: ReplayOption = None,
) -> None:
    """Add published demonstrations to a set. A file that is imported again adds nothing."""
    from newt.client.replay import ReplayClient
    from newt.official.demos import MANISKILL_EPISODES, read_demos
    from newt.official.strips import with_strip_features

    _check_set(set_)
    encoder = _encoder(image_encoder, device) if strips else None
    sources = sorted(_tasks_of(files, task), key=lambda pair: pair[1].index if pair[1].index is not None else 10**6)
    limit = None if all_episodes else MANISKILL_EPISODES
    table = name_table("task", "episodes", "new", "file")
    try:
        with ReplayClient(_replay_address(replay)) as client:
            for path, its_task in sources:
                episodes = read_demos(path, its_task, images=images, maniskill_limit=limit)
                if encoder and strips:
                    episodes = with_strip_features(episodes, strips, encoder)
                replies = [client.append(e, demo_set=set_, timeout_s=_APPEND_TIMEOUT_S) for e in episodes]
                new = sum(not reply.duplicate for reply in replies)
                table.add_row(its_task.name, str(len(episodes)), str(new), str(path))
    except NewtError:
        if table.row_count:
            console.print(table)
            console.print("Stopped here; these files are in the set. Importing them again is harmless.")
        raise
    console.print(table)


def export_file(
    out: Annotated[Path, typer.Argument(help="Published file to write; loaders expect TASK.pt.")],
    set_: Annotated[str, typer.Option("--set", help="Demonstration set.")],
    task: Annotated[str, typer.Option("--task", help="The task.")],
    force: ForceOption = False,
    replay: ReplayOption = None,
) -> None:
    """Write a task's episodes of a set as a published file."""
    from newt.client.replay import ReplayClient
    from newt.official.demos import write_demos

    _check_set(set_)
    check_output(out, force)
    name = _task(task).name
    with ReplayClient(_replay_address(replay)) as client:
        episodes = list(client.read_episodes(demo_set=set_, task=name))
    if not episodes:
        raise NotFoundError(f"set {set_!r} has no episodes of {name}; `newt demos list` shows what there is")
    write_demos(out, episodes)
    console.print(f"{len(episodes)} episodes of {name} written to {out}")


def _encoder(source: str, device: str) -> ImageEncoder:
    from newt.tasks.encoders import EncoderUnavailableError
    from newt.vision import ImageEncoder

    try:
        return ImageEncoder(source, device)
    except (EncoderUnavailableError, ValueError) as error:
        raise InvalidInputError("--image-encoder", str(error)) from error


def _tasks_of(files: Sequence[Path], task: str | None) -> list[tuple[Path, Task]]:
    if task is not None and len(files) != 1:
        raise InvalidInputError(
            "--task", f"got {len(files)} files, expected one; several are told apart by their names"
        )
    return [(path, _task(task or path.stem)) for path in files]


def _task(name: str) -> Task:
    try:
        return get_task(name)
    except UnknownTaskError as error:
        raise InvalidInputError("task", str(error)) from error


def _check_set(name: str) -> None:
    if not re.fullmatch(SET_NAME, name):
        raise InvalidInputError("--set", f"got {name!r}, expected 1-128 letters, digits or ._- after a first one")


def _replay_address(given: str | None) -> str:
    if given or os.environ.get("NEWT_REPLAY"):
        return given or os.environ["NEWT_REPLAY"]
    state = control.read(control.default_home())
    services = state.services if state and state.state == "running" else []
    address = next((str(service["address"]) for service in services if service["name"] == "replay"), None)
    if address is None:
        raise UnavailableError(
            "no local stack is running; start one with `newt up`, or name a service with --replay or $NEWT_REPLAY"
        )
    return address
