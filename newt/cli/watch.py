"""Live view of a run: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from newt.cli.rest import Api
from newt.cli.terminal import name_table
from newt.errors import UnavailableError
from newt.runs.record import EpisodeStats, Run, RunResults

_POLL_S = 1.0
_COUNTS = re.compile(r"\(.*?\)")
# A pipe or a log file gets one line per interval, and one whenever the stage changes.
_LINE_EVERY_S = 10.0
# The learner may be restarting; its runs go on.
_PATIENCE_S = 60.0


def follow(api: Api, run_id: str, console: Console) -> Run:
    """Shows a run's progress until it ends.

    Returns:
        The finished run.

    Raises:
        UnavailableError: The learner has been away for a minute.
    """
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            return _poll(api, run_id, lambda run: live.update(progress_table(run)))
    return _poll(api, run_id, _Lines(console))


def _poll(api: Api, run_id: str, show: Callable[[Run], None]) -> Run:
    answered = time.monotonic()
    while True:
        try:
            run = Run.model_validate(api.get(f"/runs/{run_id}"))
        except UnavailableError:
            if time.monotonic() - answered > _PATIENCE_S:
                raise
            time.sleep(_POLL_S)
            continue
        answered = time.monotonic()
        show(run)
        if run.state.finished:
            return run
        time.sleep(_POLL_S)


class _Lines:
    """Prints a progress line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._printed = 0.0

    def __call__(self, run: Run) -> None:
        # Without the percentages and counts, which change all the time.
        stage = f"{run.state.value} {_COUNTS.sub('', run.progress.stage)}"
        now = time.monotonic()
        if stage == self._stage and now - self._printed < _LINE_EVERY_S and not run.state.finished:
            return
        self._stage, self._printed = stage, now
        self._console.print(f"{headline(run)} | {returns_line(run)}", highlight=False, soft_wrap=True)


def headline(run: Run) -> str:
    """State, counters, speed and time left in one line."""
    progress = run.progress
    parts = [run.state.value, progress.stage]
    if progress.total_pretrain_updates:
        parts.append(f"pretraining {progress.pretrain_updates:,}/{progress.total_pretrain_updates:,}")
    parts += [
        f"env steps {progress.env_steps:,}/{progress.total_env_steps:,} ({progress.env_steps_per_s:.0f}/s)",
        f"updates {progress.updates:,}/{progress.total_updates:,} ({progress.updates_per_s:.1f}/s)",
        f"weights v{progress.weights_version}",
        f"ETA {duration(progress.eta_s)}",
    ]
    if progress.waiting_on:
        parts.append(f"waiting on {progress.waiting_on}")
    return " | ".join(parts)


def returns_line(run: Run) -> str:
    """Latest return of every task in one line."""
    known = {name: task.last_return for name, task in run.progress.tasks.items() if task.last_return is not None}
    return "returns " + (", ".join(f"{name} {value:.1f}" for name, value in known.items()) or "-")


def progress_table(run: Run) -> RenderableType:
    """Headline and one row per task."""
    table = name_table("task", "env steps", "episodes", "demos", "return", "score", "success", title=f"run {run.id}")
    for name in run.tasks:
        task = run.progress.tasks.get(name)
        if task is None:
            table.add_row(name)
            continue
        table.add_row(
            name,
            f"{task.env_steps:,}",
            str(task.episodes),
            str(task.demo_episodes),
            _number(task.last_return, 1),
            _number(task.last_score, 3),
            _number(task.last_success, 0),
        )
    lines: list[RenderableType] = [table, headline(run)]
    if run.error:
        lines.append(f"[red]{run.error}[/red]")
    return Group(*lines)


def results_table(results: RunResults) -> Table:
    """Normalised score of every task at the three milestones."""
    table = name_table(
        "task", "random", "pretrained", "final", "final return", "final success", title="normalised score"
    )
    for name, row in results.tasks.items():
        final = row.final
        table.add_row(
            name,
            _score(row.random),
            _score(row.pretrained),
            _score(final),
            _number(final.return_ if final else None, 1),
            _number(final.success if final else None, 2),
        )
    table.add_section()
    means = results.mean_score
    table.add_row("mean", _number(means.random, 3), _number(means.pretrained, 3), _number(means.final, 3), "", "")
    return table


def duration(seconds: float | None) -> str:
    """h:mm:ss, or a dash while unknown."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def _score(stats: EpisodeStats | None) -> str:
    return _number(stats.corrected_score if stats else None, 3)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
