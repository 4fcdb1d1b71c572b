"""Live view of a run: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from newt.cli import computing, events
from newt.cli.rest import Api
from newt.cli.terminal import name_table
from newt.runs.record import EpisodeStats, Progress, Run, RunResults, RunState
from newt.runs.stored import read

_COUNTS = re.compile(r"\(.*?\)")
_LINE_LENGTH = 99
_STAGE_LENGTH = 36
# A pipe or a log file gets one line per interval, and one whenever the stage changes.
_LINE_EVERY_S = 10.0


def follow(api: Api, run_id: str, console: Console) -> Run:
    """Shows a run's progress until it ends.

    Returns:
        The finished run.

    Raises:
        UnavailableError: The learner has been away for a minute.
    """
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2) as live:
            return _follow(api, run_id, lambda run: live.update(progress_table(run)))
    return _follow(api, run_id, _Lines(console))


def _follow(api: Api, run_id: str, show: Callable[[Run], None]) -> Run:
    for run in states(api, run_id):
        show(run)
    return run


def states(api: Api, run_id: str) -> Iterator[Run]:
    """A run now, and whenever it changes, until it has ended. Raises what `events.follow` does."""
    return events.follow(api, f"/runs/{run_id}", partial(read, Run), _advanced, lambda run: run.state.finished)


def _advanced(run: Run, told: dict[str, Any]) -> Run:
    state, progress = RunState(told["state"]), {name: value for name, value in told.items() if name != "state"}
    return run.model_copy(update={"state": state, "progress": read(Progress, progress)})


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
        self._console.print(short_line(run), highlight=False, markup=False, soft_wrap=True)


def headline(run: Run) -> str:
    """State, counters, speed and time left in one line."""
    progress = run.progress
    parts = [run.state.value, progress.stage]
    if progress.total_pretrain_updates:
        parts.append(f"pretraining {progress.pretrain_updates:,}/{progress.total_pretrain_updates:,}")
    going = not run.state.finished  # Speeds and time left are of what goes on.
    speeds = [f" ({progress.env_steps_per_s:.0f}/s)", f" ({progress.updates_per_s:.1f}/s)"] if going else ["", ""]
    parts += [
        f"env steps {progress.env_steps:,}/{progress.total_env_steps:,}{speeds[0]}",
        f"updates {progress.updates:,}/{progress.total_updates:,}{speeds[1]}",
        f"weights v{progress.weights_version}",
    ]
    if going:
        parts.append(f"ETA {duration(progress.eta_s)}")
    if progress.waiting_on and going:
        parts.append(f"waiting on {progress.waiting_on}")
    return " | ".join(parts)


def short_line(run: Run) -> str:
    """How far a run is, in fewer than 100 characters: for logs."""
    progress = run.progress
    if run.state.finished:
        return f"{run.state.value}: {count(progress.env_steps)} env steps, {count(progress.updates)} updates"
    parts = [_cut(progress.stage, _STAGE_LENGTH)]
    if progress.waiting_on:
        parts.append(_cut(f"waiting on {progress.waiting_on}", _STAGE_LENGTH))
    if progress.env_steps or not progress.pretrain_updates:
        steps = f"{count(progress.env_steps)}/{count(progress.total_env_steps)} steps"
        parts.append(f"{steps} {progress.env_steps_per_s:.0f}/s")
    updates = progress.updates or progress.pretrain_updates
    parts.append(f"{count(updates)} updates {progress.updates_per_s:.1f}/s")
    scores = [task.last_score for task in progress.tasks.values() if task.last_score is not None]
    if scores:
        parts.append(f"score {sum(scores) / len(scores):.2f}")
    parts.append(f"ETA {duration(progress.eta_s)}")
    return _cut(" | ".join(parts), _LINE_LENGTH)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def count(number: int) -> str:
    """A number in at most six characters: 999, 12,345, 400k, 1.25M."""
    if number < 100_000:
        return f"{number:,}"
    for unit, size in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        if number < 1000 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.1e}"


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
    if trained_on := run.progress.computing:
        lines.append(f"trains on {computing.words(trained_on)}")
        lines += filter(None, [computing.warning_line("warning", trained_on)])
    if run.error:
        lines.append(f"[red]{escape(run.error)}[/red]")
    return Group(*lines)


def results_table(results: RunResults) -> Table:
    """Normalised score of every task at the milestones; the policy alone where it was asked for."""
    means = results.mean_score
    alone = () if means.final_policy is None else ("policy alone",)
    columns = ("task", "random", "pretrained", "final", *alone, "final return", "final success")
    table = name_table(*columns, title="normalised score")
    for name, row in results.tasks.items():
        final = row.final
        table.add_row(
            name,
            _score(row.random),
            _score(row.pretrained),
            _score(final),
            *(_score(row.final_policy) for _ in alone),
            _number(final.return_ if final else None, 1),
            _number(final.success if final else None, 2),
        )
    table.add_section()
    values = (means.random, means.pretrained, means.final, *(means.final_policy for _ in alone))
    table.add_row("mean", *(_number(value, 3) for value in values), "", "")
    return table


def duration(seconds: float | None) -> str:
    """h:mm:ss, or a dash while unknown."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def _score(stats: EpisodeStats | None) -> str:
    return _number(stats.corrected_score if stats else None, 3)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
