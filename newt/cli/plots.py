"""Learning curves of a run as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from newt.runs.record import Evaluation, MetricsRow

_COLUMNS = 4


def score_curves(
    path: Path, tasks: Sequence[str], rows: Sequence[MetricsRow], evaluations: Sequence[Evaluation]
) -> None:
    """One panel per task: scores of training episodes over env steps, and the three milestones as lines.

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
    for axis, task in zip(axes[1:], tasks, strict=False):
        key = f"score/{task}"
        points = [(row.env_steps, row.values[key]) for row in rows if key in row.values]
        axis.plot([x for x, _ in points], [y for _, y in points], ".-", color="tab:blue", alpha=0.6, linewidth=1)
        axis.set_title(task, fontsize=10)
        _milestones(axis, {e.kind: e.tasks[task].corrected_score for e in evaluations if task in e.tasks})
    axes[0].set_title("mean over tasks", fontsize=10, fontweight="bold")
    axes[0].plot(
        [e.env_steps for e in evaluations if e.kind != "random"],
        [e.mean_score() for e in evaluations if e.kind != "random"],
        "o-",
        color="tab:blue",
    )
    _milestones(axes[0], {e.kind: e.mean_score() for e in evaluations})
    axes[0].legend(fontsize=8, loc="lower right")
    for axis in axes:
        axis.set_ylim(-0.05, 1.05)
        axis.grid(alpha=0.3)
    figure.supxlabel("env steps of the run (all tasks)")
    figure.supylabel("normalised score")
    figure.savefig(path, dpi=110)


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
