"""`newt tasks check`, `experts` and `sheet`: what the simulators of the installed domains make of their tasks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from newt.cli.terminal import console, name_table, print_whole
from newt.errors import InvalidInputError, NewtError, PreconditionError
from newt.tasks.domains import DOMAINS
from newt.tasks.registry import Task, UnknownTaskError, all_tasks, select_tasks

if TYPE_CHECKING:
    from services.sim.task_check import TaskReport

SpecsArgument = Annotated[
    list[str] | None, typer.Argument(help="Task names, globs, domains or sets; nothing means all installed ones.")
]
DomainOption = Annotated[
    list[str] | None, typer.Option("--domain", help="Only tasks of this domain, held-out ones included; repeatable.")
]
JobsOption = Annotated[int, typer.Option(min=1, help="Processes at a time; 0.5 to 1 GB each with frames.")]

_JOBS = max(1, (os.cpu_count() or 2) // 2)
_TIMEOUT_S = 900.0  # For one task: the slowest takes a minute on a free core.


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(check)
    app.command()(experts)
    app.command()(sheet)


def check(
    specs: SpecsArgument = None,
    domain: DomainOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the episode and its random actions.")] = 0,
    jobs: JobsOption = _JOBS,
    allow_missing_assets: Annotated[
        bool, typer.Option("--allow-missing-assets", help="Tasks whose files must be downloaded first are no failure.")
    ] = False,
) -> None:
    """Play a whole random episode of every task, undrawn and drawn; exit status 1 unless all are as registered."""
    from functools import partial

    from services.sim.isolation import Failed, for_each_task
    from services.sim.task_check import TaskReport, check_task

    tasks = _installed(specs, domain)
    reports: dict[str, TaskReport] = {}
    with console.status("") as status:
        for task, result in for_each_task(partial(check_task, seed=seed), tasks, jobs, _TIMEOUT_S):
            if isinstance(result, Failed):
                result = TaskReport(task.name, task.domain, [result.cause], action_dim=task.action_dim)
            reports[task.name] = result
            _tell(status, f"{len(reports)} of {len(tasks)}: {task.name} {_verdict(result)}")
    ordered = [reports[task.name] for task in tasks]
    print_whole(_table(ordered))
    for report in ordered:
        for remark in (*report.problems, *([report.missing_asset] if report.missing_asset else [])):
            console.print(f"{report.task}: {escape(remark)}", highlight=False, soft_wrap=True)
    failed = sum(bool(report.problems) for report in ordered)
    missing = sum(bool(report.missing_asset) for report in ordered)
    console.print(f"{len(ordered) - failed - missing} ok, {failed} failed, {missing} without their assets")
    if failed or (missing and not allow_missing_assets):
        raise typer.Exit(1)


def experts(
    specs: SpecsArgument = None,
    domain: DomainOption = None,
    episodes: Annotated[int, typer.Option(min=1, help="Of every task.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the first episode; the others have those that follow.")] = 0,
    jobs: JobsOption = _JOBS,
    page: Annotated[Path | None, typer.Option(help="Also write the table there, as Markdown.")] = None,
) -> None:
    """Play the scripted experts: how often they succeed, and how many episodes pass as demonstrations."""
    from functools import partial

    from services.sim.expert_check import ExpertReport, check_expert
    from services.sim.expert_check import page as make_page
    from services.sim.isolation import Failed, for_each_task

    tasks = [task for task in _installed(specs, domain) if task.has_expert]
    if not tasks:
        raise InvalidInputError("tasks", "none of these has a scripted expert; `newt tasks` shows which ones do")
    reports: dict[str, ExpertReport] = {}
    failures: dict[str, str] = {}
    with console.status("") as status:
        work = partial(check_expert, episodes=episodes, seed=seed)
        for task, result in for_each_task(work, tasks, jobs, _TIMEOUT_S):
            if isinstance(result, Failed):
                failures[task.name] = result.cause
            else:
                reports[task.name] = result
            _tell(status, f"{len(reports) + len(failures)} of {len(tasks)}: {task.name}")
    table = name_table("task", "episodes", "accepted", "success", "score", "lowest")
    for name in (task.name for task in tasks if task.name in reports):
        report = reports[name]
        counts = str(report.episodes), str(report.accepted)
        table.add_row(name, *counts, *map(_number, (report.success_rate, report.score, report.lowest_score)))
    print_whole(table)
    for name, cause in failures.items():
        console.print(f"{name}: {escape(cause)}", highlight=False, soft_wrap=True)
    if failures:
        raise NewtError(f"the experts of {len(failures)} of {len(tasks)} tasks failed, see above")
    if page is not None:
        page.write_text(make_page(tasks, reports), encoding="utf-8")


def sheet(
    specs: SpecsArgument = None,
    domain: DomainOption = None,
    folder: Annotated[Path, typer.Option(help="Where to write DOMAIN.png.")] = Path("docs/tasks"),
    seed: Annotated[int, typer.Option(min=0, help="Of the episodes and their random actions.")] = 0,
    jobs: JobsOption = _JOBS,
) -> None:
    """Draw a contact sheet of every domain: its tasks, a little way into an episode of random actions."""
    from functools import partial

    from services.sim.isolation import Failed, for_each_task
    from services.sim.task_sheet import picture
    from services.sim.task_sheet import sheet as make_sheet

    tasks = _installed(specs, domain)
    folder.mkdir(parents=True, exist_ok=True)
    frames, failures = {}, {}
    with console.status("") as status:
        for task, result in for_each_task(partial(picture, seed=seed), tasks, jobs, _TIMEOUT_S):
            if isinstance(result, Failed):
                failures[task.name] = result.cause
            else:
                frames[task.name] = result
            _tell(status, f"{len(frames) + len(failures)} of {len(tasks)}: {task.name}")
            members = [member.name for member in tasks if member.domain == task.domain]
            pictures = {name: frames[name] for name in members if name in frames}
            if pictures and all(name in frames or name in failures for name in members):
                path = folder / f"{task.domain}.png"
                path.write_bytes(make_sheet(pictures))
                empty = sum(frame is None for frame in pictures.values())
                note = f" ({empty} of them without their assets, see `newt tasks check`)" if empty else ""
                console.print(f"{path}: {len(pictures)} tasks{note}, {path.stat().st_size / 1000:.0f} kB")
    for task_name, cause in failures.items():
        console.print(f"{task_name}: {escape(cause)}", highlight=False, soft_wrap=True)
    if failures:
        raise NewtError(f"no picture of {len(failures)} of {len(tasks)} tasks, see above")


def _tell(status: Status, progress: str) -> None:
    if console.is_terminal:
        status.update(progress)
    else:  # A log shows no status line.
        console.print(progress, highlight=False)


def _installed(specs: list[str] | None, wanted: list[str] | None) -> list[Task]:
    """The tasks asked for, all of domains that are installed."""
    from services.sim import domains

    for name in wanted or ():
        if name not in DOMAINS:
            raise InvalidInputError("--domain", f"got {name!r}, expected one of {', '.join(DOMAINS)}")
    try:
        tasks = select_tasks(specs) if specs else list(all_tasks())
    except UnknownTaskError as error:
        raise InvalidInputError("tasks", str(error)) from error
    installed = domains.installed_domains()
    if wanted:
        tasks = [task for task in tasks if task.domain in wanted]
    elif not specs:
        tasks = [task for task in tasks if task.domain in installed]
    missing = dict.fromkeys(task.domain for task in tasks if task.domain not in installed)
    if missing:
        extras = ",".join(dict.fromkeys(domains.DOMAINS[name].extra for name in missing))
        raise PreconditionError(f"not installed: {', '.join(missing)}; install newt[{extras}], or leave them out")
    if not tasks:
        raise InvalidInputError("tasks", "nothing is selected: no task of these specs is in these domains")
    return tasks


def _table(reports: list[TaskReport]) -> Table:
    table = name_table("task", "domain", "obs", "act", "length", "return", "score", "corrected", "ms/step", "RGB", "")
    for report in reports:
        table.add_row(
            report.task,
            report.domain,
            *(str(number) if report.length else "-" for number in (report.obs_dim, report.action_dim, report.length)),
            f"{report.episode_return:.2f}" if report.length else "-",
            _number(report.score),
            _number(report.corrected_score) if report.corrected_score != report.score else "-",
            _number(report.step_ms),
            {True: "ok", False: "[red]wrong[/red]", None: "-"}[report.frames_ok],
            _verdict(report),
        )
    return table


def _verdict(report: TaskReport) -> str:
    return "ok" if report.ok else "[red]failed[/red]" if report.problems else "[yellow]asset missing[/yellow]"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
