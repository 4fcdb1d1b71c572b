"""`newt tasks check`, `experts` and `sheet`: what the simulators of the installed domains make of their tasks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from newt.cli.terminal import console, name_table, print_whole
from newt.cli.told_lines import ToldLines
from newt.errors import InvalidInputError, NewtError, PreconditionError
from newt.processes import how_it_ended
from newt.tasks.domains import DOMAINS, how_to_install, installed_domains
from newt.tasks.registry import Task, UnknownTaskError, all_tasks, select_tasks
from newt.tasks.reports import ExpertReport, TaskReport

SpecsArgument = Annotated[
    list[str] | None, typer.Argument(help="Task names, globs, domains or sets; nothing means all installed ones.")
]
DomainOption = Annotated[
    list[str] | None, typer.Option("--domain", help="Only tasks of this domain, held-out ones included; repeatable.")
]
JobsOption = Annotated[int, typer.Option(min=1, help="Processes at a time; 0.5 to 1 GB each with frames.")]

_JOBS = max(1, (os.cpu_count() or 2) // 2)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(check)
    app.command()(experts)
    app.command()(sheet)


def check(
    specs: SpecsArgument = None,
    domain: DomainOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episode and its random actions.")] = 0,
    jobs: JobsOption = _JOBS,
    allow_missing_assets: Annotated[
        bool, typer.Option("--allow-missing-assets", help="Tasks whose files must be downloaded first are no failure.")
    ] = False,
) -> None:
    """Play a whole random episode of every task, undrawn and drawn; exit status 1 unless all are as registered."""
    tasks = _installed(specs, domain)
    reports: dict[str, TaskReport] = {}
    with console.status("") as status:
        for line in _lines("play", tasks, seed=seed, jobs=jobs):
            task = _named(tasks, line)
            failed = TaskReport(task.name, task.domain, [line.get("failed", "")], action_dim=task.action_dim)
            report = TaskReport(**line["report"]) if "report" in line else failed
            reports[task.name] = report
            _tell(status, f"{len(reports)} of {len(tasks)}: {task.name} {_verdict(report)}")
    ordered = [reports[task.name] for task in tasks]
    print_whole(_table(ordered))
    for report in ordered:
        for remark in (*report.problems, *([report.missing_asset] if report.missing_asset else [])):
            console.print(f"{report.task}: {escape(remark)}", highlight=False, soft_wrap=True)
    wrong = sum(bool(report.problems) for report in ordered)
    missing = sum(bool(report.missing_asset) for report in ordered)
    console.print(f"{len(ordered) - wrong - missing} ok, {wrong} failed, {missing} without their assets")
    if wrong or (missing and not allow_missing_assets):
        raise typer.Exit(1)


def experts(
    specs: SpecsArgument = None,
    domain: DomainOption = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of every task.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first episode; the others have those that follow.")] = 0,
    jobs: JobsOption = _JOBS,
    page: Annotated[Path | None, typer.Option(help="Also write the table there, as Markdown.")] = None,
) -> None:
    """Play the scripted experts: how often they succeed, and how many episodes pass as demonstrations."""
    tasks = [task for task in _installed(specs, domain) if task.has_expert]
    if not tasks:
        raise InvalidInputError("tasks", "none of these has a scripted expert; `newt tasks` shows which ones do")
    reports: dict[str, ExpertReport] = {}
    failures: dict[str, str] = {}
    with console.status("") as status:
        for line in _lines("experts", tasks, seed=seed, jobs=jobs, episodes=episodes):
            if "report" in line:
                reports[line["task"]] = ExpertReport(**line["report"])
            else:
                failures[line["task"]] = line["failed"]
            _tell(status, f"{len(reports) + len(failures)} of {len(tasks)}: {line['task']}")
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
        page.write_text(experts_page(tasks, reports), encoding="utf-8")


def sheet(
    specs: SpecsArgument = None,
    domain: DomainOption = None,
    folder: Annotated[Path, typer.Option(help="Folder for DOMAIN.png.")] = Path("docs/tasks"),
    tiles: Annotated[Path | None, typer.Option(help="Folder for TASK.webp, a small picture of each as well.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes and their random actions.")] = 0,
    jobs: JobsOption = _JOBS,
) -> None:
    """Draw a contact sheet of every domain: its tasks, a little way into an episode of random actions."""
    tasks = _installed(specs, domain)
    for made in (folder, tiles):
        if made is not None:
            made.mkdir(parents=True, exist_ok=True)
    more = {} if tiles is None else {"tiles": tiles}
    done, failures = 0, {}
    with console.status("") as status:
        for line in _lines("sheet", tasks, seed=seed, jobs=jobs, folder=folder, **more):
            if "sheet" in line:
                path, empty = Path(line["sheet"]), line["empty"]
                note = f" ({empty} of them without their assets, see `newt tasks check`)" if empty else ""
                console.print(f"{path}: {line['pictures']} tasks{note}, {path.stat().st_size / 1000:.0f} kB")
                continue
            done += 1
            if "failed" in line:
                failures[line["task"]] = line["failed"]
            _tell(status, f"{done} of {len(tasks)}: {line['task']}")
    for name, cause in failures.items():
        console.print(f"{name}: {escape(cause)}", highlight=False, soft_wrap=True)
    if failures:
        raise NewtError(f"no picture of {len(failures)} of {len(tasks)} tasks, see above")


def _lines(check: str, tasks: Sequence[Task], **options: object) -> Iterator[dict[str, Any]]:
    """What `services.sim.checks` tells of each task, as soon as it is known."""
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    told = ToldLines("services.sim.checks", check, *arguments, *(task.name for task in tasks))
    yield from told
    if told.status:
        raise NewtError(f"the process that checks the tasks {how_it_ended(told.status)}, see above")


def _named(tasks: Sequence[Task], line: dict[str, Any]) -> Task:
    return next(task for task in tasks if task.name == line["task"])


def _tell(status: Status, progress: str) -> None:
    if console.is_terminal:
        status.update(progress)
    else:  # A log shows no status line.
        console.print(progress, highlight=False)


def _installed(specs: list[str] | None, wanted: list[str] | None) -> list[Task]:
    """The tasks asked for, all of domains that are installed."""
    for name in wanted or ():
        if name not in DOMAINS:
            raise InvalidInputError("--domain", f"got {name!r}, expected one of {', '.join(DOMAINS)}")
    try:
        tasks = select_tasks(specs) if specs else list(all_tasks())
    except UnknownTaskError as error:
        raise InvalidInputError("tasks", str(error)) from error
    installed = installed_domains()
    if wanted:
        tasks = [task for task in tasks if task.domain in wanted]
    elif not specs:
        tasks = [task for task in tasks if task.domain in installed]
    missing = dict.fromkeys(task.domain for task in tasks if task.domain not in installed)
    if missing:
        raise PreconditionError(f"not installed: {', '.join(missing)}; {how_to_install(missing)}, or leave them out")
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


def experts_page(tasks: Sequence[Task], reports: dict[str, ExpertReport]) -> str:
    """The Markdown page with a table for every domain.

    Args:
        tasks: Tasks with experts, in the order wanted.
        reports: Reports by task name.
    """
    lines = [
        "# Scripted experts",
        "",
        "Tasks with an expert of a few lines, whose episodes can become demonstrations (`newt demos scripted`, or",
        "`demos.scripted_episodes` of a run). Written by `newt tasks experts --page docs/experts.md`, with",
        "consecutive seeds. *Accepted* are the episodes that the rule for demonstrations lets pass",
        "(newt/tasks/demo_rule.py): a return above 0.75 of the median, or above 1.25 of it if it is not positive, and",
        "success at the last step in Meta-World. A perfect `pygame-coconut-dodge` has the return 0 and so exceeds no",
        "threshold; `newt demos scripted` keeps it, as it keeps all successes of tasks that define success.",
        "*Success* is the share of episodes that end in success, where the task defines it. *Score* is the mean of the",
        "scores that reports use, normalised to [0, 1]; *lowest* that of the worst episode.",
    ]
    for domain in dict.fromkeys(task.domain for task in tasks):
        lines += ["", f"## {DOMAINS[domain].title}", "", "| Task | Episodes | Accepted | Success | Score | Lowest |"]
        lines += ["|---|---|---|---|---|---|"]
        for task in tasks:
            if task.domain == domain:
                lines.append(_page_row(task.name, reports[task.name]))
    return "\n".join(lines) + "\n"


def _page_row(name: str, report: ExpertReport) -> str:
    success = "-" if math.isnan(report.success_rate) else f"{report.success_rate:.0%}"
    scores = f"{report.score:.3f} | {report.lowest_score:.3f}"
    return f"| {name} | {report.episodes} | {report.accepted} | {success} | {scores} |"
