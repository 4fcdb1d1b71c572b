"""How runs train: scores of episodes by task, and what the trainer reports. Of one run, or of groups of seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from newt.report.group_names import group_names
from newt.report.metric_names import metric_name, ordered
from newt.report.records import RunRecord
from newt.report.rewinds import standing
from newt.report.statistics import Array
from newt.report.style import COLOURS, Drawn, Row, axes_of, legend, new_figure, thousands
from newt.report.thinning import thinned
from newt.runs.groups import group_key
from newt.runs.record import MetricsRow

_COLUMNS, _MANY = 4, 40  # beyond so many panels, rows are twice as long
_EPISODES = 5  # of a task in a running mean: the score of most tasks' episodes is either 0 or 1
_MOST = 1_500  # points of a line; beyond, its least and greatest values stay
_GRID = 200  # points of a mean over runs
_LOG_RATIO = 4.0  # of the greatest to the least value; below, a logarithmic axis is a linear one with odd marks
_SPIKE = 20.0  # beyond so many medians, a linear axis shows a spike and nothing else
# Kind of evaluation: colour, line, width, marker, and its place on the x axis. The later ones are drawn over the
# former, thinner and with more gaps, so that all are seen where they have the same score.
_MILESTONES = {
    "final": (COLOURS[2], "-", 4.0, "D", 1.0),
    "final_policy": (COLOURS[3], "-.", 2.4, "o", 0.965),
    "pretrained": (COLOURS[4], "--", 1.8, "s", 0.035),
    "random": (COLOURS[8], ":", 1.2, "v", 0.0),
}
_LABELS = {"random": "random policy, evaluated", "final_policy": "final policy alone, evaluated"}
_SCORE = "score/"


@dataclass(frozen=True)
class Points:
    """A curve.

    Attributes:
        x: float64[N], ascending.
        y: float64[N].
    """

    x: Array
    y: Array

    def thinned(self) -> Points:
        """The same with no more points than can be seen."""
        kept = thinned(self.y, _MOST)
        return Points(self.x[kept], self.y[kept])


@dataclass(frozen=True)
class Told:
    """What a run told of its training, without what it went back behind."""

    record: RunRecord

    @cached_property
    def rows(self) -> list[MetricsRow]:
        """Its rows, oldest first."""
        return standing(self.record.metrics)

    @cached_property
    def names(self) -> set[str]:
        """The trainer's metrics."""
        return {name for row in self.rows if row.source == "trainer" for name in row.values}

    def metric(self, name: str) -> Points:
        """A metric of the trainer over updates, pretraining included."""
        # By updates: what a resumed run tells of the update that it goes on from counts.
        return _points({row.updates: row.values[name] for row in self.rows if name in row.values}.items())

    @cached_property
    def scores(self) -> Mapping[str, Points]:
        """Scores of training episodes over env steps of the run, by task."""
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            for name, value in row.values.items():
                if name.startswith(_SCORE):
                    found.setdefault(name.removeprefix(_SCORE), []).append((row.env_steps, value))
        return {task: _points(points) for task, points in found.items()}

    @cached_property
    def mean_score(self) -> Points:
        """Mean over tasks of each one's running mean."""
        tasks = self.record.run.tasks
        return mean_curve([running_mean(self.scores.get(task, _points(()))) for task in tasks])

    @property
    def end(self) -> float:
        """Env steps of the last thing that is known."""
        steps = [row.env_steps for row in self.rows] + [item.env_steps for item in self.record.results.evaluations]
        return float(max(steps, default=0))


@dataclass(frozen=True)
class Group:
    """Runs that are drawn in one colour: seeds of the same settings.

    Attributes:
        title: What a legend says.
        runs: What each told.
        expected: Runs that there should be; no mean is made of fewer.
    """

    title: str
    runs: Sequence[Told]
    expected: int


def groups_of(records: Iterable[RunRecord]) -> list[Group]:
    """Runs with the same settings but for their seed and name, as a group each, in the order of their first."""
    found: dict[str, list[RunRecord]] = {}
    for record in records:
        found.setdefault(group_key(record.run.spec), []).append(record)
    several = {key: members for key, members in found.items() if len(members) > 1}
    names = group_names([members[0].run.spec for members in several.values()])
    titles = dict(zip(several, names, strict=True))
    return [
        Group(
            f"{titles[key]}, {len(members)} runs" if key in titles else members[0].run.id,
            [Told(record) for record in members],
            len(members),
        )
        for key, members in found.items()
    ]


def scores(groups: Sequence[Group], stem: str, title: str) -> Drawn:
    """Scores of training episodes: one panel for the mean over tasks, and one for each task.

    Of a single run, dots are episodes and lines across its evaluations. Of several, thin lines are runs, and a thick
    one the mean of a group.
    """
    tasks = list(dict.fromkeys(task for group in groups for told in group.runs for task in told.record.run.tasks))
    columns = _COLUMNS if len(tasks) < _MANY else 2 * _COLUMNS
    height = 2.6 if len(tasks) < _MANY else 1.9
    figure = new_figure(3.9 * _COLUMNS, height * -(-(1 + len(tasks)) // columns) + 1.0)
    first, *panels = axes_of(figure, 1 + len(tasks), columns)
    alone = groups[0].runs[0] if len(groups) == len(groups[0].runs) == 1 else None
    end = max((told.end for group in groups for told in group.runs), default=0.0) or 1.0
    rows = [row for group in groups for told in group.runs for row in _episodes(group, told)]
    _panel(first, "mean over tasks", [(group, [told.mean_score for told in group.runs]) for group in groups], end)
    if alone is not None:
        # One without a task that could not be played has no place among means of all.
        whole = [e for e in alone.record.results.evaluations if e.tasks.keys() >= set(alone.record.run.tasks)]
        _milestones(first, {e.kind: e.mean_score() for e in whole}, end)
        periodic = [e for e in whole if e.kind == "periodic"]
        if periodic:
            places, values = [e.env_steps for e in periodic], [e.mean_score() for e in periodic]
            first.plot(places, values, "o", color=COLOURS[2], label="evaluation on the way")
    for panel, task in zip(panels, tasks, strict=True):
        none = _points(())
        found = [(group, [running_mean(told.scores.get(task, none)) for told in group.runs]) for group in groups]
        if alone is not None:
            stats = {e.kind: e.tasks[task] for e in alone.record.results.evaluations if task in e.tasks}
            _milestones(panel, {kind: item.corrected_score for kind, item in stats.items()}, end)
            dots = alone.scores.get(task, none).thinned()
            panel.plot(dots.x, dots.y, ".", color=COLOURS[0], alpha=0.35, markersize=3.5, label="training episode")
        _panel(panel, task, found, end)
    legend(figure, [*panels, first], columns=6 if alone is not None else 3)
    figure.supxlabel("env steps of a run (all tasks)", fontsize=9)
    figure.supylabel("normalised score", fontsize=9)
    return Drawn(stem, title, figure, rows)


def losses(groups: Sequence[Group], stem: str, title: str, metrics: Sequence[str] | None = None) -> Drawn:
    """Metrics of the trainer over updates; of several runs their mean, with the lowest and highest as a band.

    Args:
        groups: The runs.
        stem: Name of the files.
        title: What is shown.
        metrics: Which ones; None for all.
    """
    known: set[str] = set().union(*(told.names for group in groups for told in group.runs))
    names = list(metrics) if metrics is not None else ordered(known)
    if not names:
        return Drawn(stem, title, None, [], ("The trainer has told nothing yet.",))
    columns = min(_COLUMNS, 2 if len(names) <= 4 else _COLUMNS, len(names))
    figure = new_figure(3.9 * columns, 2.3 * -(-len(names) // columns) + 1.0)
    panels = axes_of(figure, len(names), columns)
    rows: list[Row] = []
    for panel, name in zip(panels, names, strict=True):
        words, drawn = metric_name(name), [np.zeros(0)]
        if len(groups) == len(groups[0].runs) == 1:
            _pretraining(panel, groups[0].runs[0].record)
        for number, group in enumerate(groups):
            found = [points for points in (told.metric(name) for told in group.runs) if len(points.x)]
            colour = COLOURS[number % len(COLOURS)]
            if not found or len(found) < group.expected:
                lacking = f"{group.title} ({len(found)} of {group.expected} runs)" if found else group.title
                panel.plot([], [], color=colour, label=lacking)
                continue
            mean, low, high = _mean_and_range(found)
            drawn.append(mean.y)
            if len(found) > 1:
                panel.fill_between(mean.x, low, high, color=colour, alpha=0.16, linewidth=0)
            style = "-" if len(mean.x) > 1 else "."
            panel.plot(mean.x, mean.y, style, color=colour, linewidth=1.4, label=group.title)
            for x, value, least, most in zip(mean.x, mean.y, low, high, strict=True):
                row: Row = {"metric": name, "runs": group.title, "updates": float(x), "mean": float(value)}
                rows.append(row | {"low": float(least), "high": float(most), "seeds": len(found)})
        _scale(panel, np.concatenate(drawn), log=words.log)
        panel.set_xlim(left=0)
        panel.set_title(words.title, fontsize=9.5)
        panel.set_ylabel(words.unit, fontsize=8)
        panel.xaxis.set_major_formatter(thousands)
    legend(figure, panels, columns=4)
    figure.supxlabel("updates, pretraining included", fontsize=9)
    return Drawn(stem, title, figure, rows)


def running_mean(points: Points) -> Points:
    """Of each point and the few before it."""
    sums = np.concatenate([[0.0], np.cumsum(points.y)])
    ends = np.arange(1, len(points.y) + 1)
    starts = np.maximum(0, ends - _EPISODES)
    return Points(points.x, (sums[ends] - sums[starts]) / (ends - starts))


def mean_curve(curves: Sequence[Points]) -> Points:
    """Mean of all curves' latest values, wherever one changes, from where each has begun."""
    latest: dict[int, float] = {}
    total, mean = 0.0, []
    for x, curve, y in sorted((x, i, y) for i, c in enumerate(curves) for x, y in zip(c.x, c.y, strict=True)):
        total += y - latest.get(curve, 0.0)
        latest[curve] = y
        if len(latest) == len(curves):
            mean.append((x, total / len(latest)))
    return _points(mean)


def spiky(values: Array) -> bool:
    """Whether a few values are so much larger than the others that a linear axis would flatten these."""
    sizes = np.abs(values[values != 0])
    return bool(sizes.size) and bool(sizes.max() > _SPIKE * np.median(sizes))


def _points(pairs: Iterable[tuple[float, float]]) -> Points:
    table = np.array(list(pairs), dtype=float).reshape(-1, 2)
    return Points(table[:, 0], table[:, 1])


def _episodes(group: Group, told: Told) -> Iterable[Row]:
    run = told.record.run
    for task, points in told.scores.items():
        for x, y in zip(points.x, points.y, strict=True):
            row: Row = {"runs": group.title, "run": run.id, "seed": run.spec.seed, "task": task}
            yield row | {"env_steps": float(x), "score": float(y)}


def _panel(panel: Axes, title: str, found: Sequence[tuple[Group, list[Points]]], end: float) -> None:
    panel.set_title(title, fontsize=9.5, fontweight="bold" if title == "mean over tasks" else None)
    alone = len(found) == 1 and found[0][0].expected == 1
    for number, (group, curves) in enumerate(found):
        colour, there = COLOURS[number % len(COLOURS)], [curve.thinned() for curve in curves if len(curve.x)]
        label = f"mean of a task's last {_EPISODES} episodes" if alone else group.title
        for curve in there if group.expected > 1 else ():
            panel.plot(curve.x, curve.y, color=colour, linewidth=0.8, alpha=0.4)
        if there and len(there) == group.expected:
            mean, _, _ = _mean_and_range(there)
            panel.plot(mean.x, mean.y, color=colour, linewidth=1.6, label=label, zorder=4)
        elif not alone:
            panel.plot([], [], color=colour, linewidth=1.6, label=label)
    panel.set_xlim(-0.03 * end, 1.03 * end)
    panel.set_ylim(-0.06, 1.06)
    panel.xaxis.set_major_formatter(thousands)


def _mean_and_range(curves: Sequence[Points]) -> tuple[Points, Array, Array]:
    """Mean, least and greatest of curves, where all of them are."""
    if len(curves) == 1:
        (only,) = (curves[0].thinned(),)
        return only, only.y, only.y
    x = np.linspace(max(c.x[0] for c in curves), min(c.x[-1] for c in curves), _GRID)
    values = np.stack([np.interp(x, c.x, c.y) for c in curves])
    return Points(x, values.mean(axis=0)), values.min(axis=0), values.max(axis=0)


def _scale(panel: Axes, values: Array, *, log: bool) -> None:
    """A logarithmic axis for losses and spikes."""
    least, most = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    if 0 < least < _LOG_RATIO * least < most and (log or spiky(values)):
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0,) if most > 100 * least else (1.0, 2.0, 5.0), numticks=7))
        panel.yaxis.set_minor_formatter(NullFormatter())
    elif spiky(values):
        panel.set_yscale("symlog")
    else:
        return
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # plain, as all text of our pictures


def _pretraining(panel: Axes, record: RunRecord) -> None:
    progress = record.run.progress
    if progress.total_pretrain_updates and progress.updates:
        end = progress.total_pretrain_updates
        panel.axvspan(0, end, color="black", alpha=0.06, linewidth=0, label="pretraining")


def _milestones(panel: Axes, found: Mapping[str, float], end: float) -> None:
    for kind, (colour, line, width, marker, place) in _MILESTONES.items():
        if kind in found:
            panel.axhline(found[kind], color=colour, linestyle=line, linewidth=width, alpha=0.5)
            label = _LABELS.get(kind, f"{kind}, evaluated")
            panel.plot([place * end], [found[kind]], marker, color=colour, linestyle=line, linewidth=width, label=label)
