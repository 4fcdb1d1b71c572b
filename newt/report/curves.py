"""Learning curves: one panel for all tasks, or one for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from newt.report.lines import Line
from newt.report.statistics import Array, Estimate, StatisticName, estimate
from newt.report.style import COLOURS, Drawn, Row, axes_of, legend, new_figure, thousands

_COLUMNS = 4
_FEW = 40  # tasks; beyond, rows are twice as long
_RESAMPLES = 1_000  # of each point
X_LABEL = "env steps of each task"


def curves(lines: Sequence[Line], stem: str, title: str, statistic: StatisticName = "mean") -> Drawn:
    """The aggregate over tasks and seeds while training, with its 95% interval as a band."""
    figure = new_figure(7.2, 4.4)
    (panel,) = axes_of(figure, 1, 1)
    rows: list[Row] = []
    for number, line in enumerate(lines):
        points = _aggregated(line, list(range(len(line.tasks))), statistic)
        _draw(panel, line, number, points, _end(lines))
        rows += _rows(line, "all", points)
    _dress(panel, lines)
    panel.set_ylabel(f"score, {'mean' if statistic == 'mean' else 'interquartile mean'} over tasks")
    panel.set_xlabel(X_LABEL)
    legend(figure, [panel], columns=3)
    return Drawn(stem, title, figure, rows)


def task_curves(lines: Sequence[Line], stem: str, title: str) -> Drawn:
    """The mean over seeds of every task while training."""
    tasks = list(dict.fromkeys(task for line in lines for task in line.tasks))
    columns = _COLUMNS if len(tasks) <= _FEW else 2 * _COLUMNS
    figure = new_figure(3.0 * min(columns, len(tasks)), 2.1 * -(-len(tasks) // columns) + 0.9)
    panels = axes_of(figure, len(tasks), columns)
    rows: list[Row] = []
    for panel, task in zip(panels, tasks, strict=True):
        for number, line in enumerate(lines):
            if task in line.tasks:
                points = _aggregated(line, [line.tasks.index(task)], "mean")
                _draw(panel, line, number, points, _end(lines))
                rows += _rows(line, task, points)
        _dress(panel, lines)
        panel.set_title(task, fontsize=9.5)
    legend(figure, panels, columns=5)
    figure.supxlabel(X_LABEL, fontsize=9)
    figure.supylabel("score", fontsize=9)
    return Drawn(stem, title, figure, rows)


def _aggregated(line: Line, places: Sequence[int], statistic: StatisticName) -> list[tuple[float, Estimate, Array]]:
    """Env steps, aggregate over some tasks, and the mean of each seed."""
    curve = line.curve
    return [
        (float(x), estimate(scores[:, places], statistic, _RESAMPLES), scores[:, places].mean(axis=1))
        for x, scores in zip(curve.env_steps, curve.scores, strict=True)
    ]


def _draw(panel: Axes, line: Line, number: int, points: Sequence[tuple[float, Estimate, Array]], end: float) -> None:
    colour, width = COLOURS[number % len(COLOURS)], 2.2 if number == 0 else 1.6
    x, value, low, high = (
        (
            np.array(column, dtype=float)
            for column in zip(*((x, e.value, e.low, e.high) for x, e, _ in points), strict=True)
        )
        if points
        else (np.zeros(0),) * 4
    )
    if line.offline and len(x):
        # It takes no env steps: its score is a line across.
        x, value, low, high = np.array([0.0, end]), *(np.full(2, part[-1]) for part in (value, low, high))
    panel.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    style = "--" if line.offline else "-"
    marker = "" if line.offline else "o"
    panel.plot(
        x, value, style, label=line.legend, color=colour, linewidth=width, marker=marker, markersize=3.2, zorder=3
    )
    if np.isnan(value).any() and not line.offline:
        # Where seeds are missing there is no aggregate: what there is of single seeds stays visible.
        for at, _, seeds in points:
            panel.plot([at] * len(seeds), seeds, ".", color=colour, markersize=3, alpha=0.6)


def _end(lines: Sequence[Line]) -> float:
    ends = [line.curve.env_steps[-1] for line in lines if len(line.curve.env_steps)]
    return float(max(ends, default=1.0)) or 1.0


def _dress(panel: Axes, lines: Sequence[Line]) -> None:
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlim(-0.02 * _end(lines), 1.02 * _end(lines))
    panel.xaxis.set_major_formatter(thousands)
    panel.xaxis.set_major_locator(MaxNLocator(5))


def _rows(line: Line, task: str, points: Sequence[tuple[float, Estimate, Array]]) -> list[Row]:
    rows: list[Row] = []
    for x, found, seeds in points:
        row: Row = {"variant": line.name, "task": task, "env_steps_of_a_task": x, "value": found.value}
        row |= {"low": found.low, "high": found.high, "seeds_expected": len(line.seeds)}
        rows.append(row | {"seeds": int((~np.isnan(seeds)).sum())})
    return rows
