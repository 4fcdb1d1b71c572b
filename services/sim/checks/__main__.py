"""Checks tasks, each in a process of its own kind, and prints a line of JSON for each as soon as it is done.

    python -m services.sim.checks play --seed 1 --jobs 2 mw-reach mujoco-ant
    python -m services.sim.checks experts --episodes 10 lunarlander-land
    python -m services.sim.checks sheet --folder docs/tasks mw-reach

A line has the `task` and either its `report`, or `failed` with the cause. `play` reports newt.tasks.reports.TaskReport,
`experts` ExpertReport, and `sheet` whether there is a `picture`; it adds a line for each domain's `sheet`, a file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from newt.tasks.pictures import tile
from newt.tasks.registry import Task, get_task
from services.sim.checks.experts import check_expert
from services.sim.checks.isolation import Failed, for_each_task
from services.sim.checks.play import check_task

R = TypeVar("R")
Lines = Generator[dict[str, Any], None, None]

TIMEOUT_S = 900.0
"""For one task: the slowest takes a minute on a free core."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m services.sim.checks")
    parser.add_argument("check", choices=["play", "experts", "sheet"])
    parser.add_argument("tasks", nargs="+", help="names of registered tasks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of every expert")
    parser.add_argument("--folder", type=Path, default=Path(), help="where sheets go")
    parser.add_argument("--tiles", type=Path, help="where a small picture of each task goes, if anywhere")
    options = parser.parse_args(arguments)
    tasks = [get_task(name) for name in options.tasks]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # Ends the processes below as well.
    # What simulators print must not get between our lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lines = {"play": _play, "experts": _experts, "sheet": _sheet}[options.check](tasks, options)
    try:
        for line in lines:
            print(json.dumps(line), file=out, flush=True)
    except (KeyboardInterrupt, BrokenPipeError):  # Nobody listens any more.
        return 128 + signal.SIGINT
    finally:
        lines.close()
    return 0


def _play(tasks: list[Task], options: argparse.Namespace) -> Lines:
    for task, report in _each(partial(check_task, seed=options.seed), tasks, options):
        yield {"task": task.name, **_outcome(report, asdict)}


def _experts(tasks: list[Task], options: argparse.Namespace) -> Lines:
    for task, report in _each(partial(check_expert, episodes=options.episodes, seed=options.seed), tasks, options):
        yield {"task": task.name, **_outcome(report, asdict)}


def _sheet(tasks: list[Task], options: argparse.Namespace) -> Lines:
    from services.sim.checks.sheet import picture, sheet  # Pillow is not there with every domain.

    frames: dict[str, Any] = {}
    for task, frame in _each(partial(picture, seed=options.seed), tasks, options):
        frames[task.name] = frame
        if options.tiles and frame is not None and not isinstance(frame, Failed):
            (options.tiles / f"{task.name}.webp").write_bytes(tile(frame))
        yield {"task": task.name, **_outcome(frame, lambda drawn: {"picture": drawn is not None})}
        members = [member.name for member in tasks if member.domain == task.domain]
        if any(name not in frames for name in members):
            continue
        if pictures := {name: frames[name] for name in members if not isinstance(frames[name], Failed)}:
            path = options.folder / f"{task.domain}.png"
            path.write_bytes(sheet(pictures))
            empty = sum(drawn is None for drawn in pictures.values())
            yield {"task": task.name, "sheet": str(path), "pictures": len(pictures), "empty": empty}


def _each(
    work: Callable[[Task], R], tasks: list[Task], options: argparse.Namespace
) -> Iterator[tuple[Task, R | Failed]]:
    return for_each_task(work, tasks, options.jobs, TIMEOUT_S)


def _outcome(result: R | Failed, report: Callable[[R], Any]) -> dict[str, Any]:
    return {"failed": result.cause} if isinstance(result, Failed) else {"report": report(result)}


if __name__ == "__main__":
    sys.exit(main())
