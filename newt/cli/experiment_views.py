"""How far an experiment is, for people and for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType

from newt.cli import watch
from newt.cli.terminal import line, list_table
from newt.runs.costs import Estimates
from newt.runs.expansion import Experiment
from newt.runs.standing import Cell, Standing


def summary(experiment: Experiment, standing: Standing) -> str:
    """One line: how many runs are in which state, and how long it will take."""
    counts: dict[str, int] = {}
    for cell in standing.cells:
        counts[cell.state] = counts.get(cell.state, 0) + 1
    parts = [f"{number} {state}" for state, number in counts.items()]
    if standing.evaluations:
        ready = sum(item.state == "succeeded" for item in standing.evaluations)
        parts.append(f"{ready} of {len(standing.evaluations)} evaluations")
    return f"{experiment.name}: {', '.join(parts)}; {left(experiment, standing)}"


def left(experiment: Experiment, standing: Standing) -> str:
    """How long the runs at work and the missing ones will take, in words."""
    estimates = Estimates(standing.cells, experiment.scale.speeds)
    seconds = [estimates.seconds_left(cell) for cell in standing.cells]
    known = [value for value in seconds if value is not None]
    if not any(known) and len(known) < len(seconds):
        return "no estimate before the first run has ended"
    at_work = max(1, sum(cell.living for cell in standing.cells))
    text = f"about {watch.duration(sum(known) / at_work)} left"
    return text if len(known) == len(seconds) else f"{text}, without {len(seconds) - len(known)} runs of unknown length"


def view(experiment: Experiment, standing: Standing) -> RenderableType:
    """A line for each variant with the states of its runs, and what a reader must know of them."""
    table = list_table("variant", "done", "at work", "missing", "ended", note="at work now")
    rows: dict[str, list[Cell]] = {}
    for cell in standing.cells:
        owner = "" if cell.key.experiment == experiment.name else f"{cell.key.experiment.partition('/')[2]}."
        rows.setdefault(f"{owner}{cell.key.variant}", []).append(cell)
    for label, cells in rows.items():
        living = [cell for cell in cells if cell.living]
        now = "; ".join(f"seed {cell.key.seed} {watch.short_line(cell.run)}" for cell in living if cell.run)
        counts = [sum(cell.done for cell in cells), len(living), sum(cell.run is None for cell in cells)]
        ended = len(cells) - sum(counts)
        table.add_row(label, *map(str, counts), str(ended) if ended else "", line(now))
    lines: list[RenderableType] = [table, summary(experiment, standing)]
    lines += [f"note: {line(note)}" for note in notes_of(standing)]
    return Group(*lines)


def notes_of(standing: Standing) -> list[str]:
    """What is not as planned: runs that ended otherwise, have other settings, or are there twice."""
    notes = []
    for cell in standing.cells:
        if cell.run is None:
            continue
        if cell.state in ("failed", "cancelled"):
            notes.append(f"{cell.key}: {cell.run.id} {cell.state}: {cell.run.error or 'no reason given'}")
        if changes := cell.changes():
            more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
            notes.append(f"{cell.key}: {cell.run.id} has other settings: {'; '.join(changes[:3])}{more}")
        if cell.others:
            notes.append(f"{cell.key}: {cell.run.id} counts, {', '.join(run.id for run in cell.others)} do not")
    notes += [
        f"{item}: {item.job.id} failed: {item.job.error}"
        for item in standing.evaluations
        if item.job and item.state == "failed"
    ]
    return notes


def told(experiment: Experiment, standing: Standing) -> dict[str, Any]:
    """All of it, for programs."""
    estimates = Estimates(standing.cells, experiment.scale.speeds)
    return {
        "experiment": experiment.name,
        "runs": [
            {
                "experiment": cell.key.experiment,
                "variant": cell.key.variant,
                "task": cell.key.task or None,
                "seed": cell.key.seed,
                "state": cell.state,
                "id": cell.run.id if cell.run else None,
                "seconds_left": estimates.seconds_left(cell),
            }
            for cell in standing.cells
        ],
        "evaluations": [
            {"evaluation": item.name, "run": item.cell.run.id if item.cell.run else None, "state": item.state,
             "id": item.job.id if item.job else None}
            for item in standing.evaluations
        ],
        "notes": notes_of(standing),
    }  # fmt: skip
