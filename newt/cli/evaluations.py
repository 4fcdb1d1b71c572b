"""`newt eval`: evaluate a checkpoint through the REST API."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.table import Table

from newt.cli import events
from newt.cli.rest import Api, UrlOption
from newt.cli.terminal import JsonOption, console, line, list_table, name_table, print_broken, print_json, print_whole
from newt.errors import InvalidInputError, NewtError
from newt.runs.evaluations import MAX_PLAN_STEPS, EvaluationJob, EvaluationJobList
from newt.runs.intervals import half_width
from newt.runs.record import EpisodeStats, Evaluation
from newt.runs.stored import read


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="RUN (its newest), RUN/NAME, RUN/best or imported/NAME.")],
    tasks: Annotated[
        list[str] | None, typer.Argument(help="Task names, globs, domains or sets. Default: the checkpoint's tasks.")
    ] = None,
    episodes: Annotated[int, typer.Option(help="Episodes per task.")] = 2,
    mode: Annotated[
        str | None, typer.Option(help="planner, policy or open-loop. Default: as the agent was trained to act.")
    ] = None,
    plan_steps: Annotated[int, typer.Option(help="Length of the plan of open-loop.")] = MAX_PLAN_STEPS,
    instruction: Annotated[
        list[str] | None, typer.Option(help="Changed instruction, as TASK=TEXT; repeatable.")
    ] = None,
    unconstrained: Annotated[
        bool, typer.Option("--unconstrained", help="Plan freely, also where training followed the policy.")
    ] = False,
    constraint_weight: Annotated[
        float | None,
        typer.Option(
            help="Share of the policy in a plan's first proposal, 0 to 1. Default: what training had reached."
        ),
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
    if unconstrained and constraint_weight:
        raise InvalidInputError("--constraint-weight", f"got {constraint_weight} beside --unconstrained; choose one")
    api = Api(url)
    request = {
        "checkpoint": checkpoint,
        "tasks": tasks or None,
        "episodes": episodes,
        "plan_steps": plan_steps,
        "instructions": dict(_instruction(text) for text in instruction or []),
        "constraint_weight": 0.0 if unconstrained else constraint_weight,
        "seed": seed,
        "videos": videos,
    }
    if mode is not None:
        request["mode"] = mode.replace("-", "_")
    job = read(EvaluationJob, api.post("/evaluations", request))
    with console.status(f"evaluation {job.id} ...") as status:
        for job in events.follow(
            api,
            f"/evaluations/{job.id}",
            partial(read, EvaluationJob),
            lambda _, told: read(EvaluationJob, told),
            lambda job: not job.under_way,
        ):
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


def list_evaluations(json: JsonOption = False, url: UrlOption = None) -> None:
    """List the evaluations that were asked for, a line each; their reports: GET /evaluations/ID/report."""
    listed = read(EvaluationJobList, Api(url).get("/evaluations"))
    if json:
        print_json(listed)
        return
    table = list_table("evaluation", "state", "checkpoint", "mode", "score", note="error")
    for job in listed.evaluations:
        score = f"{job.result.mean_score():.3f}" if job.result else "-"
        table.add_row(job.id, job.state, job.request.checkpoint, job.request.mode, score, line(job.error or ""))
    print_whole(table)
    print_broken(listed.broken)


def scores_table(job: EvaluationJob, result: Evaluation) -> Table:
    """Means by task."""
    # As narrow as it can be: the longest name of a task and all figures fit 80 columns.
    table = name_table(
        "task", "score", "± 95%", "return", "success", "episodes", "steps", box=SIMPLE, padding=0, show_edge=False
    )
    weight = job.request.constraint_weight
    planned = "as trained" if weight is None else f"constraint weight {weight:g}"
    how = result.mode if result.mode == "policy" else f"{result.mode}, {planned}"
    table.title = f"{job.request.checkpoint}, {how}, seed {job.request.seed}"
    told = job.request.instructions.keys() & result.tasks.keys()
    table.caption = "* told otherwise" if told else None
    for task, stats in result.tasks.items():
        success = "-" if stats.success is None else f"{stats.success:.2f}"
        table.add_row(
            f"{task} *" if task in told else task,
            f"{stats.corrected_score:.3f}",
            _interval([stats]),
            f"{stats.return_:.1f}",
            success,
            str(stats.episodes),
            f"{stats.length:.0f}",
        )
    table.add_section()
    table.add_row("mean", f"{result.mean_score():.3f}", _interval(result.tasks.values()), "", "", "", "")
    return table


def _interval(stats: Iterable[EpisodeStats]) -> str:
    tasks = list(stats)
    width = half_width([task.score_std for task in tasks], [task.episodes for task in tasks])
    return "-" if width is None else f"{width:.3f}"


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
