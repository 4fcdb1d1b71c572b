"""`newt demos record`: a person, or a policy of one's own, plays a task; the good episodes become a file."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newt.cli.checkpoints import ForceOption, check_output
from newt.cli.terminal import console
from newt.errors import NewtError, NotFoundError
from newt.local import control
from newt.local.state import default_home
from newt.tasks import demo_rule
from newt.tasks.pace import real_time

if TYPE_CHECKING:
    from newt.recordings.playing import Player
    from newt.wire.episodes import Episode

_TIMEOUT_S = 60.0


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(record)


def record(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, *.npz: `newt demos import` takes it.")],
    policy: Annotated[
        str | None, typer.Option(help="MODULE:FUNCTION of an observation plays. Default: you, by keyboard or gamepad.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Whole episodes to play.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the others have those after it.")] = 0,
    fps: Annotated[
        float | None, typer.Option(min=0.1, help="Steps per second of a person. Default: the task in real time.")
    ] = None,
    sim: Annotated[str | None, typer.Option(help="Simulator service, HOST:PORT. Default: the local stack's.")] = None,
    all_episodes: Annotated[bool, typer.Option("--all-episodes", help="Keep what is not good enough.")] = False,
    force: ForceOption = False,
) -> None:
    """Play a task and write the episodes that are good enough as demonstrations."""
    from newt.client import RemoteEnv
    from newt.recordings.playing import play

    check_output(out, force)
    played: list[Episode] = []
    failure: NewtError | None = None
    with (
        RemoteEnv(task, address=sim or _simulator_of(task), render_mode="rgb_array", timeout_s=_TIMEOUT_S) as env,
        _player(policy, task, env.task.action_dim, fps or real_time([env.task])) as player,
    ):
        try:
            for episode in play(env, player, episodes, seed):
                played.append(episode)
                console.print(f"episode {len(played)}: {_told(float(episode.reward.sum()), episode.success)}")
        except NewtError as error:
            failure = error
    if played:
        _write(out, task, played, all_episodes)  # what was whole is kept, whatever came behind it
    if failure is not None:
        raise failure
    if not played:
        raise NewtError("no episode was played to its end, so nothing is written")


def _write(out: Path, task: str, played: list[Episode], all_episodes: bool) -> None:
    from newt.recordings.npz import write_npz

    returns = [float(episode.reward.sum()) for episode in played]
    good = demo_rule.accepted(task, returns, [episode.success for episode in played])
    kept = [episode for episode, keep in zip(played, good, strict=True) if keep or all_episodes]
    if not kept:
        raise NewtError(f"none of {len(played)} episodes is good enough; --all-episodes keeps them")
    write_npz(out, kept)
    console.print(f"{out}: {len(kept)} of {len(played)} episodes; newt demos import {out} --set NAME", soft_wrap=True)


def _told(total: float, success: float) -> str:
    return f"return {total:.2f}" + ("" if math.isnan(success) else f", {'success' if success else 'no success'}")


@contextmanager
def _player(policy: str | None, task: str, columns: int, fps: float) -> Iterator[Player]:
    from newt.recordings.playing import FunctionPlayer

    if policy is not None:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # `newt` is a program, to which modules of this folder are unknown
        yield FunctionPlayer(policy)
        return
    from newt.recordings.person import Person  # pygame

    person = Person(task, columns, fps)
    try:
        yield person
    finally:
        person.close()


def _simulator_of(task: str) -> str:
    """The simulator of the local stack that describes the task."""
    from newt.client import SimClient

    state = control.read(default_home())
    for service in state.services if state is not None and state.active else []:
        if service["name"].startswith("sim-"):
            with SimClient(str(service["address"]), _TIMEOUT_S) as client:
                if any(found.name == task for found in client.describe()):
                    return str(service["address"])
    raise NotFoundError(f"no simulator of the local stack has {task}; `newt up` starts one, or say --sim HOST:PORT")
