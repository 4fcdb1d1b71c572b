"""`newt eval`: evaluate a checkpoint through the REST API."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import console, name_table
from newt.errors import InvalidInputError, NewtError
from newt.runs.evaluations import MAX_PLAN_STEPS, EvaluationJob
from newt.runs.record import Evaluation

POLL_S = 1.0


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="RUN (its newest), RUN/NAME or imported/NAME.")],
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Task names, globs, domains or sets. Default: the checkpoint's tasks.")
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes per task.")] = 2,
    mode: Annotated[str, typer.Option(help="planner, policy or open-loop.")] = "planner",
    plan_steps: Annotated[int, typer.Option(help="Length of the plan of open-loop.")] = MAX_PLAN_STEPS,
    instruction: Annotated[
        list[str] | None, typer.Option(help="Changed instruction, as TASK=TEXT; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Origin of the episodes' seeds.")] = 0,
    videos: Annotated[bool, typer.Option("--videos", help="Record one video per task.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="File for the whole report as JSON, single episodes included.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the evaluation as JSON instead of a table.")] = False,
    url: UrlOption = None,
) -> None:
    """Evaluate a checkpoint and print the scores."""
    api = Api(url)
    request = {
        "checkpoint": checkpoint,
        "tasks": tasks or None,
        "episodes": episodes,
        "mode": mode.replace("-", "_"),
        "plan_steps": plan_steps,
        "instructions": dict(_instruction(text) for text in instruction or []),
        "seed": seed,
        "videos": videos,
    }
    job = EvaluationJob.model_validate(api.post("/evaluations", request))
    with console.status(f"evaluation {job.id} ...") as status:
        while job.state == "running":
            time.sleep(POLL_S)
            job = EvaluationJob.model_validate(api.get(f"/evaluations/{job.id}"))
            waits = f", waiting on {job.waiting_on}" if job.waiting_on else ""
            status.update(f"evaluation {job.id} of {job.request.checkpoint}: {job.progress:.0%}{waits}")
    if job.result is None:
        raise NewtError(f"evaluation {job.id} failed: {job.error}")
    if out is not None:
        api.download(f"/evaluations/{job.id}/report", out)
    if json:
        print(job.model_dump_json(indent=1))
        return
    console.print(scores_table(job, job.result))
    if job.result.open_loop:
        console.print(open_loop_table(job.result))
    for name in job.videos.values():
        console.print(f"{api.url}/evaluations/{job.id}/videos/{name}", soft_wrap=True)


def scores_table(job: EvaluationJob, result: Evaluation) -> Table:
    """Means by task."""
    table = name_table("task", "score", "return", "success", "episodes", "steps")
    table.title = f"{job.request.checkpoint}, {result.mode}, seed {job.request.seed}"
    for task, stats in result.tasks.items():
        success = "-" if stats.success is None else f"{stats.success:.2f}"
        told = " (told otherwise)" if task in job.request.instructions else ""
        table.add_row(
            task + told,
            f"{stats.corrected_score:.3f}",
            f"{stats.return_:.1f}",
            success,
            str(stats.episodes),
            f"{stats.length:.0f}",
        )
    table.add_section()
    table.add_row("mean", f"{result.mean_score():.3f}", "", "", "", "")
    return table


def open_loop_table(result: Evaluation) -> Table:
    """Share of the closed loop's return after a third, two thirds and all of the plan."""
    table = name_table("task", "plan", "33 %", "66 %", "100 %", "open return", "closed return")
    table.title = "open loop: share of the closed loop's return"
    for task, stats in result.open_loop.items():
        shares = ["-" if point.fraction is None else f"{point.fraction:.2f}" for point in stats.points]
        end = stats.points[-1]
        table.add_row(task, str(stats.plan_steps), *shares, f"{end.open_return:.1f}", f"{end.closed_return:.1f}")
    return table


def _instruction(text: str) -> tuple[str, str]:
    task, equals, instruction = text.partition("=")
    if not equals:
        raise InvalidInputError("--instruction", f"got {text!r}, expected TASK=TEXT")
    return task, instruction
