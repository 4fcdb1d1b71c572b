"""Learning curves of a run as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from newt.runs.record import Evaluation, MetricsRow

_COLUMNS = 4
_EPISODES = 5  # of a task in a running mean: the score of most tasks' episodes is either 0 or 1

Points = list[tuple[int, float]]


def score_curves(
    path: Path, tasks: Sequence[str], rows: Sequence[MetricsRow], evaluations: Sequence[Evaluation]
) -> None:
    """One panel per task: scores of training episodes over env steps, and the three milestones as lines.

    Dots are episodes, lines are means of a task's last few; the first panel has their mean, once all tasks have one.

    Args:
        path: PNG file to write.
        tasks: Panels, in this order.
        rows: Metrics history; uses the values `score/TASK`.
        evaluations: The run's evaluations.
    """
    lines = math.ceil((len(tasks) + 1) / _COLUMNS)
    figure = _figure(4 * _COLUMNS, 2.8 * lines)
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    for axis in axes[len(tasks) + 1 :]:
        axis.set_visible(False)
    curves: list[Points] = []
    for axis, task in zip(axes[1:], tasks, strict=False):
        key = f"score/{task}"
        points = [(row.env_steps, row.values[key]) for row in rows if key in row.values]
        curves.append(running_mean(points))
        axis.plot(*_columns(points), ".", color="tab:blue", alpha=0.35)
        axis.plot(*_columns(curves[-1]), "-", color="tab:blue", linewidth=1.5)
        axis.set_title(task, fontsize=10)
        _milestones(axis, {e.kind: e.tasks[task].corrected_score for e in evaluations if task in e.tasks})
    axes[0].set_title("mean over tasks", fontsize=10, fontweight="bold")
    axes[0].plot(*_columns(mean_curve(curves)), "-", color="tab:blue", linewidth=1.5, label="training")
    evaluated = [(e.env_steps, e.mean_score()) for e in evaluations if e.kind != "random"]
    axes[0].plot(*_columns(evaluated), "o", color="tab:blue", label="evaluation")
    _milestones(axes[0], {e.kind: e.mean_score() for e in evaluations})
    axes[0].legend(fontsize=8, loc="lower right")
    last = max([row.env_steps for row in rows] + [e.env_steps for e in evaluations], default=0)
    for axis in axes:
        axis.set_xlim(-0.02 * last, 1.02 * last or 1)
        axis.set_ylim(-0.05, 1.05)
        axis.grid(alpha=0.3)
    figure.supxlabel("env steps of the run (all tasks)")
    figure.supylabel(f"normalised score (lines: mean of the last {_EPISODES} episodes)")
    figure.savefig(path, dpi=110)


def running_mean(points: Points) -> Points:
    """Of each point and the few before it."""
    scores = [y for _, y in points]
    recent = (scores[max(0, i + 1 - _EPISODES) : i + 1] for i in range(len(scores)))
    return [(x, sum(window) / len(window)) for (x, _), window in zip(points, recent, strict=True)]


def mean_curve(curves: Sequence[Points]) -> Points:
    """Mean of all curves' latest values, wherever one changes, from where each has begun."""
    latest: dict[int, float] = {}
    mean: Points = []
    for x, curve, y in sorted((x, i, y) for i, points in enumerate(curves) for x, y in points):
        latest[curve] = y
        if len(latest) == len(curves):
            mean.append((x, sum(latest.values()) / len(latest)))
    return mean


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def loss_curves(path: Path, rows: Sequence[MetricsRow]) -> None:
    """Training metrics over updates, pretraining included: one panel per metric that the trainer reports."""
    trainer = [row for row in rows if row.source == "trainer"]
    names = sorted({name for row in trainer for name in row.values})
    if not names:
        return
    lines = math.ceil(len(names) / _COLUMNS)
    figure = _figure(4 * _COLUMNS, 2.4 * lines)
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        points = [(row.updates, row.values[name]) for row in trainer if name in row.values]
        axis.plot([x for x, _ in points], [y for _, y in points], linewidth=1)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    figure.supxlabel("updates")
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float) -> Figure:
    mpl.use("Agg")
    return Figure(figsize=(width, height), layout="constrained")


def _milestones(axis: object, scores: dict[str, float]) -> None:
    styles = {"random": ("tab:grey", ":"), "pretrained": ("tab:orange", "--"), "final": ("tab:green", "-")}
    for kind, (color, line) in styles.items():
        if kind in scores:
            axis.axhline(scores[kind], color=color, linestyle=line, linewidth=1.2, label=kind)  # type: ignore[attr-defined]
