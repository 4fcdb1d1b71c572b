"""`newt tour`: one small but real run on this machine, from nothing to curves, videos and a checkpoint."""

from __future__ import annotations

import copy
import functools
import json
import os
import platform
import time
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

import newt
from newt.cli import runs, stack, watch
from newt.cli.rest import Api
from newt.cli.terminal import console
from newt.errors import NewtError, PreconditionError
from newt.local import control
from newt.local.stack import StackConfig
from newt.runs.record import CheckpointList, Run, RunResults, RunState
from newt.runs.stored import read
from newt.tasks.domains import DOMAINS, how_to_install

TASK_SET = "tour"
# What is posted, but for name and seed; examples/run.json is the same run. Without demonstrations, the other tasks show
# what comes of experience alone.
RUN: dict[str, Any] = {
    "preset": "laptop",
    "tasks": [TASK_SET],
    "demos": {"scripted_tasks": ["metaworld"]},
    "schedule": {"total_env_steps": 24_000, "pretrain_updates": 1_500, "updates_per_env_step": 0.25},
    # Tasks without demonstrations have the rest of a batch alone.
    "replay": {"demo_fraction": 0.25},
    "evaluation": {"policy_alone": True},
}
_PACKAGES = ("torch", "numpy", "mujoco", "dm_control", "metaworld", "gymnasium", "grpcio", "redis")


def register(app: typer.Typer) -> None:
    """Adds the command, also under the name that it had before."""
    app.command()(tour)
    app.command("demo", hidden=True)(demo)


def tour(
    seed: Annotated[int, typer.Option(help="Source of all randomness of the run.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder under which the tour's own folder is made.")] = Path("runs"),
    env_steps: Annotated[int | None, typer.Option(help="Env steps instead of the preset's.")] = None,
    set_: runs.SetOption = None,
) -> None:
    """Start all services, train on six tasks of three domains, and leave everything in one folder."""
    started = time.monotonic()
    request: dict[str, Any] = {"name": "tour", "seed": seed, **copy.deepcopy(RUN)}
    if env_steps:
        request["schedule"]["total_env_steps"] = env_steps
    runs.assign(request, set_ or ())
    domains = tuple(sorted({task.domain for task in runs.tasks_of(request["tasks"])}))
    missing = [name for name in domains if DOMAINS[name].missing_packages()]
    if missing:
        raise PreconditionError(f"not installed: {', '.join(missing)}; {how_to_install(missing)}")
    folder = (out / f"tour-{datetime.now():%Y%m%d-%H%M%S}-seed{seed}").resolve()
    console.print(f"Starting Redis, {len(domains)} simulator services, replay, planner and learner on loopback ...")
    state = control.up(StackConfig(home=folder / "stack", domains=domains, fixed_ports=False, owner_pid=os.getpid()))
    try:
        console.print(stack.table_of(state))
        api = Api(state.rest_url)
        console.print(f"POST {api.url}/runs {json.dumps(request)}", soft_wrap=True)
        run = watch.follow(api, read(Run, api.post("/runs", request)).id, console)
        if run.state is not RunState.SUCCEEDED:
            raise NewtError(f"the run {run.state.value}: {run.error}; logs are in {folder / 'stack' / 'logs'}")
        results = _collect(api, run, folder, seconds=time.monotonic() - started)
    finally:
        control.down(folder / "stack")
    console.print(watch.results_table(results))
    console.print(f"Took {watch.duration(time.monotonic() - started)}. Curves, videos, checkpoint and results.json:")
    console.print(str(folder), soft_wrap=True, highlight=False)


@functools.wraps(tour)
def demo(**options: Any) -> None:
    """`newt tour` under its former name: a demo is a demonstration now."""
    console.print("`newt demo` is called `newt tour` now; either works.")
    tour(**options)


def _collect(api: Api, run: Run, folder: Path, seconds: float) -> RunResults:
    """Downloads what the run made into the tour's folder."""
    from newt.cli import plots  # matplotlib takes a while to import, and nothing else needs it
    from newt.report import records

    (found,) = records.fetch(api, [run.id], "all").records.values()
    plots.draw([found], folder)
    results = found.results
    newest = read(CheckpointList, api.get(f"/runs/{run.id}/checkpoints")).checkpoints[-1]
    api.download(f"/runs/{run.id}/checkpoints/{newest.name}", folder / f"checkpoint-{newest.name}")
    (folder / "videos").mkdir()
    for name in results.videos.values():
        api.download(f"/runs/{run.id}/videos/{name}", folder / "videos" / Path(name).name)
    record = {
        "run": run.id,
        "seconds": round(seconds),
        "settings": run.spec.model_dump(mode="json"),
        "versions": {
            "newt": newt.__version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "machine": {"system": platform.platform(), "processor": _processor()},
        "mean_score": results.mean_score.model_dump(mode="json"),
        "tasks": {task: row.model_dump(mode="json") for task, row in results.tasks.items()},
    }
    (folder / "results.json").write_text(json.dumps(record, indent=1))
    return results


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
