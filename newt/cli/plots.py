"""Learning curves of a run as PNG files."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from newt.runs.record import Evaluation, MetricsRow, Run

_COLUMNS = 4
_EPISODES = 5  # of a task in a running mean: the score of most tasks' episodes is either 0 or 1
# Kind of evaluation: colour, line, width, marker and its place on the x axis. The later ones are drawn over the former,
# thinner and with more gaps, so that all are seen where they have the same score.
_MILESTONES = {
    "final": ("tab:green", "-", 4.0, "D", 1.0),
    "final_policy": ("tab:purple", "-.", 2.4, "o", 0.965),
    "pretrained": ("tab:orange", "--", 1.8, "s", 0.035),
    "random": ("black", ":", 1.2, "v", 0.0),
}
_LABELS = {"random": "random policy, evaluated", "final_policy": "final policy alone, evaluated"}
# What the trainer reports: title and unit of its panel, in the order of the panels.
_METRICS = {
    "total_loss": ("model loss, all terms", "weighted sum"),
    "consistency_loss": ("prediction of latent states", "squared error"),
    "reward_loss": ("prediction of rewards", "cross-entropy, nats"),
    "value_loss": ("critics", "cross-entropy, nats"),
    "td_target": ("targets of the critics", "return"),
    "bc_loss": ("cloning and entropy (pretraining)", "weighted sum"),
    "bc": ("actions of demonstrations (pretraining)", "squared error"),
    "policy_loss": ("policy loss, all terms", "weighted sum"),
    "policy_bc": ("policy: actions of the batch", "squared error"),
    "policy_q": ("value of the policy's actions", "return"),
    "policy_scaled_entropy": ("entropy of the policy", "scaled, nats"),
    "scale": ("scale of values in the policy loss", "return"),
    "scale_min": ("smallest scale of a task", "return"),
    "scale_max": ("largest scale of a task", "return"),
    "grad_norm": ("gradient of the model, before clipping", "norm"),
    "policy_grad_norm": ("gradient of the policy, before clipping", "norm"),
    "updates_per_s": ("speed", "updates per second"),
    "blocked_s": ("waiting for batches", "seconds per report"),
    "updates_behind": ("behind the steps taken", "updates"),
    "weights_age_updates": ("age of the weights that act", "updates"),
    "weights_age_s": ("age of the weights that act", "seconds"),
}
# Beyond so many medians, a linear axis shows a spike and nothing else.
_SPIKE = 20.0

Points = list[tuple[int, float]]


def score_curves(path: Path, run: Run, rows: Sequence[MetricsRow], evaluations: Sequence[Evaluation]) -> None:
    """One panel per task: scores of training episodes over env steps, and the three milestones as lines.

    Dots are episodes, lines are means of a task's last few; the first panel has their mean, once all tasks have one.

    Args:
        path: PNG file to write.
        run: Names the panels and the figure.
        rows: Metrics history; uses the values `score/TASK`.
        evaluations: The run's evaluations.
    """
    last = max([row.env_steps for row in rows] + [e.env_steps for e in evaluations], default=0) or 1
    figure, (first, *panels) = _figure(run, 1 + len(run.tasks), 2.8)
    curves: list[Points] = []
    for axis, task in zip(panels, run.tasks, strict=True):
        key = f"score/{task}"
        points = [(row.env_steps, row.values[key]) for row in rows if key in row.values]
        curves.append(running_mean(points))
        _milestones(axis, {e.kind: e.tasks[task].corrected_score for e in evaluations if task in e.tasks}, last)
        axis.plot(*_columns(points), ".", color="tab:blue", alpha=0.35, label="training episode")
        axis.plot(*_columns(curves[-1]), "-", color="tab:blue", linewidth=1.5, label=f"mean of the last {_EPISODES}")
        axis.set_title(task, fontsize=10)
    first.set_title("mean over tasks", fontsize=10, fontweight="bold")
    _milestones(first, {e.kind: e.mean_score() for e in evaluations}, last)
    periodic = [(e.env_steps, e.mean_score()) for e in evaluations if e.kind == "periodic"]
    if periodic:
        first.plot(*_columns(periodic), "o", color="tab:green", label="evaluation on the way")
    first.plot(*_columns(mean_curve(curves)), "-", color="tab:blue", linewidth=1.5)
    for axis in (first, *panels):
        axis.set_xlim(-0.03 * last, 1.03 * last)
        axis.set_ylim(-0.06, 1.06)
        axis.grid(alpha=0.3)
    _legend(figure, [first, *panels])
    figure.supxlabel("env steps of the run (all tasks)")
    figure.supylabel("normalised score")
    figure.savefig(path, dpi=110)


def loss_curves(path: Path, run: Run, rows: Sequence[MetricsRow]) -> None:
    """Training metrics over updates, pretraining included: one panel per metric that the trainer reports."""
    trainer = [row for row in rows if row.source == "trainer"]
    found = {name for row in trainer for name in row.values}
    names = [name for name in _METRICS if name in found] + sorted(found - _METRICS.keys())
    if not names:
        return
    last = max(row.updates for row in trainer)
    pretraining = run.progress.total_pretrain_updates
    figure, axes = _figure(run, len(names), 2.4)
    for axis, name in zip(axes, names, strict=True):
        title, unit = _METRICS.get(name, (name.replace("_", " "), ""))
        points = [(row.updates, row.values[name]) for row in trainer if name in row.values]
        values = [value for _, value in points]
        if spiky(values):
            axis.set_yscale("log" if min(values) > 0 else "symlog")
        if 0 < pretraining < last:
            axis.axvspan(0, pretraining, color="black", alpha=0.06, linewidth=0, label="pretraining")
        axis.plot(*_columns(points), "-" if len(points) > 1 else ".", color="tab:blue", linewidth=1)
        axis.set_xlim(0, last or 1)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel(unit, fontsize=8)
        axis.grid(alpha=0.3)
    _legend(figure, axes)
    figure.supxlabel("updates, pretraining included")
    figure.savefig(path, dpi=110)


def spiky(values: Sequence[float]) -> bool:
    """Whether a few values are so much larger than the others that a linear axis would flatten these."""
    sizes = [abs(value) for value in values if value]
    return bool(sizes) and max(sizes) > _SPIKE * statistics.median(sizes)


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


def _figure(run: Run, panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels that says which run it is of."""
    mpl.use("Agg")
    lines = math.ceil(panels / _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, height * lines + 0.8), layout="constrained")
    axes = list(figure.subplots(lines, _COLUMNS, squeeze=False).flatten())
    for axis in axes[panels:]:
        axis.set_visible(False)
    when = run.finished_at or run.started_at or run.created_at
    figure.suptitle(f"run {run.id}, seed {run.spec.seed}, {when:%Y-%m-%d %H:%M} UTC", fontsize=11, x=0.01, ha="left")
    return figure, axes[:panels]


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """Above all panels, beside the title; each label once."""
    handles: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=len(handles), fontsize=9)


def _milestones(axis: Axes, scores: Mapping[str, float], last: int) -> None:
    for kind, (color, line, width, marker, place) in _MILESTONES.items():
        if kind in scores:
            axis.axhline(scores[kind], color=color, linestyle=line, linewidth=width, alpha=0.5)
            label = _LABELS.get(kind, f"{kind}, evaluated")
            axis.plot([place * last], [scores[kind]], marker, color=color, linestyle=line, linewidth=width, label=label)
