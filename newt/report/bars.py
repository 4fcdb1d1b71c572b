"""Bars and tables of final scores, and of evaluations that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from newt.report.lines import Line, domains_of
from newt.report.statistics import Array, Estimate, StatisticName, difference, estimate
from newt.report.style import COLOURS, Drawn, Row, axes_of, legend, new_figure
from newt.runs.record import Evaluation, EvaluationKind
from newt.tasks.domains import DOMAINS


@dataclass(frozen=True)
class Asked:
    """An evaluation that was asked for, of the runs of some variants.

    Attributes:
        title: What a legend says.
        variants: Names of the variants.
        results: Its results by id of the run.
    """

    title: str
    variants: Sequence[str]
    results: Mapping[str, Evaluation]


Series = tuple[str, str, Callable[[Sequence[str]], Array]]
"""Name, title, and scores float64[R, K] of some tasks."""

_AT: Mapping[str, str] = {"final": "at the end", "pretrained": "before the first step", "random": "at random"}


def bars(
    lines: Sequence[Line],
    stem: str,
    title: str,
    statistic: StatisticName = "mean",
    at: EvaluationKind = "final",
    published: Mapping[str, float] | None = None,
) -> Drawn:
    """The aggregate of each variant with its 95% interval, its seeds as dots, and what the paper has beside it."""
    figure = new_figure(7.2, 0.42 * len(lines) + 1.3)
    (panel,) = axes_of(figure, 1, 1)
    rows: list[Row] = []
    first = lines[0].scores(at)
    for number, line in enumerate(lines):
        scores = line.scores(at)
        found, apart = estimate(scores, statistic), difference(scores, first, statistic)
        seeds = scores.mean(axis=1)
        _bar(panel, number, found, seeds, COLOURS[number % len(COLOURS)], across=True)
        if np.isnan(found.value):
            panel.text(0.01, number, "missing" if np.isnan(seeds).all() else "incomplete", va="center", color="#777777")
        else:
            edge = found.value if np.isnan(found.high) else max(found.high, float(seeds.max()))
            panel.text(edge + 0.012, number, f"{found.value:.2f}", va="center", fontsize=9)
        theirs = (published or {}).get(line.name)
        if theirs is not None:
            label = "published" if "published" not in panel.get_legend_handles_labels()[1] else None
            panel.plot([theirs], [number], marker="D", color="black", markersize=6, linestyle="", label=label, zorder=4)
        row: Row = {"variant": line.name, "title": line.title, "value": found.value, "low": found.low}
        row |= {"high": found.high, "seeds": int((~np.isnan(seeds)).sum()), "seeds_expected": len(line.seeds)}
        row |= {"minus_first": apart.value, "minus_first_low": apart.low, "minus_first_high": apart.high}
        rows.append(row | {"published": theirs})
    panel.set_yticks(range(len(lines)), [line.legend for line in lines])
    panel.invert_yaxis()
    panel.grid(False, axis="y")
    panel.set_xlim(0, 1.06)
    words = "mean" if statistic == "mean" else "interquartile mean"
    panel.set_xlabel(f"score {_AT.get(at, at)}, {words} over tasks; bar: 95% interval, dots: seeds")
    legend(figure, [panel])
    return Drawn(stem, title, figure, rows, _bar_table(rows))


def domains(lines: Sequence[Line], stem: str, title: str, at: EvaluationKind = "final") -> Drawn:
    """Mean score of each variant in each domain, and over all tasks."""
    tasks = list(dict.fromkeys(task for line in lines for task in line.tasks))
    groups = {"all tasks": tasks, **{name: [tasks[i] for i in places] for name, places in domains_of(tasks).items()}}
    return _grouped(
        [(line.name, line.legend, partial(_columns, line, line.scores(at))) for line in lines],
        {f"{DOMAINS[name].title if name in DOMAINS else name}\n({len(own)})": own for name, own in groups.items()},
        stem,
        title,
        f"mean score {_AT.get(at, at)}",
    )


def evaluations(lines: Sequence[Line], asked: Mapping[str, Asked], stem: str, title: str) -> Drawn:
    """Scores in evaluations that were asked for, by task.

    Args:
        lines: The variants.
        asked: What was asked for, by name.
        stem: Name of the files.
        title: What is shown.
    """
    found = [evaluation for item in asked.values() for evaluation in item.results.values()]
    evaluated = {task for evaluation in found for task in evaluation.tasks}
    tasks = [task for task in dict.fromkeys(t for line in lines for t in line.tasks) if task in evaluated]
    tasks += sorted(evaluated - set(tasks))
    groups = {"all tasks": tasks, **({task: [task] for task in tasks} if len(tasks) > 1 else {})}
    series = [
        (
            f"{line.name}/{name}",
            f"{line.title}, {item.title}" if len(lines) > 1 else item.title,
            partial(line.requested, item.results),
        )
        for name, item in asked.items()
        for line in lines
        if line.name in item.variants
    ]
    return _grouped(series, groups, stem, title, "mean score")


def task_table(
    lines: Sequence[Line],
    stem: str,
    title: str,
    at: EvaluationKind = "final",
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> Drawn:
    """Score of every variant in every task, as a table.

    Args:
        lines: The variants.
        stem: Name of the file.
        title: What is shown.
        at: Which evaluation.
        published: Title of published scores to score by task, in columns behind ours.
    """
    theirs = published or {}
    tasks = list(dict.fromkeys(task for line in lines for task in line.tasks))
    rows: list[Row] = []
    head = [*(line.title for line in lines), *theirs]
    text = [f"| Task | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    for task in tasks:
        cells = []
        for line in lines:
            scores = _columns(line, line.scores(at), [task])
            found = estimate(scores)
            row: Row = {"task": task, "variant": line.name, "value": found.value, "low": found.low, "high": found.high}
            rows.append(row | {"seeds": int((~np.isnan(scores)).sum()), "seeds_expected": len(line.seeds)})
            cells.append(found.text(2))
        for name, scores_of in theirs.items():
            rows.append({"task": task, "variant": name, "value": scores_of.get(task)})
            cells.append(f"{scores_of[task]:.2f}" if task in scores_of else "-")
        text.append(f"| {task} | {' | '.join(cells)} |")
    means = [line.estimate("mean", at).text(3) for line in lines]
    blank = ["-"] * len(theirs)  # theirs are of some of the tasks: their mean would be of others than ours
    text.append(f"| **mean** | {' | '.join([*means, *blank])} |")
    iqms = [line.estimate("iqm", at).text(3) for line in lines]
    text.append(f"| **interquartile mean** | {' | '.join([*iqms, *blank])} |")
    return Drawn(stem, title, None, rows, tuple(text))


def _columns(line: Line, scores: Array, tasks: Sequence[str]) -> Array:
    """The columns of tasks, NaN for those that the variant does not have."""
    result = np.full((len(scores), len(tasks)), np.nan)
    for column, task in enumerate(tasks):
        if task in line.tasks:
            result[:, column] = scores[:, line.tasks.index(task)]
    return result


def _grouped(series: Sequence[Series], groups: Mapping[str, list[str]], stem: str, title: str, label: str) -> Drawn:
    width = max(6.0, 0.16 * len(groups) * (len(series) + 1.5) + 1.2)
    figure = new_figure(min(width, 16.0), 4.0)
    (panel,) = axes_of(figure, 1, 1)
    step = 0.86 / max(1, len(series))
    rows: list[Row] = []
    for number, (name, words, scores_of) in enumerate(series):
        for place, (group, tasks) in enumerate(groups.items()):
            scores = scores_of(tasks)
            found, seeds = estimate(scores, "mean"), scores.mean(axis=1)
            x = place + (number - (len(series) - 1) / 2) * step
            tag = words if place == 0 else None
            _bar(panel, x, found, seeds, COLOURS[number % len(COLOURS)], width=0.9 * step, label=tag)
            if np.isnan(found.value):
                panel.plot([x], [0.012], marker="x", color="#777777", markersize=4, linestyle="")
            row: Row = {"group": group.replace("\n", " "), "series": name, "value": found.value, "low": found.low}
            row |= {"high": found.high, "seeds": int((~np.isnan(seeds)).sum()), "seeds_expected": len(seeds)}
            rows.append(row | {"tasks": len(tasks)})
    panel.set_xticks(range(len(groups)), list(groups), rotation=0 if len(groups) <= 9 else 40,
                     ha="center" if len(groups) <= 9 else "right")  # fmt: skip
    panel.grid(False, axis="x")
    panel.axvspan(-0.5, 0.5, color="#F4F4F4", zorder=0)
    panel.set_xlim(-0.5, len(groups) - 0.5)
    panel.set_ylim(0, 1.05)
    panel.set_ylabel(label)
    legend(figure, [panel], columns=4)
    return Drawn(stem, title, figure, rows)


def _bar(
    panel: Axes, at: float, found: Estimate, seeds: Array, colour: str,
    *, width: float = 0.66, across: bool = False, label: str | None = None,
) -> None:  # fmt: skip
    draw = panel.barh if across else panel.bar
    draw([at], [0.0 if np.isnan(found.value) else found.value], width, color=colour, alpha=0.75, label=label, zorder=2)
    if not np.isnan(found.low):
        ends = ([found.low, found.high], [at, at]) if across else ([at, at], [found.low, found.high])
        panel.plot(*ends, color="#222222", linewidth=1.4, solid_capstyle="butt", zorder=3)
    there = seeds[~np.isnan(seeds)]
    places = ([*there], [at] * len(there)) if across else ([at] * len(there), [*there])
    panel.plot(*places, "o", color="white", markeredgecolor="#222222", markeredgewidth=0.7, markersize=3.2, zorder=4)


def _bar_table(rows: Sequence[Row]) -> tuple[str, ...]:
    published = any(row["published"] is not None for row in rows)
    head = ["Variant", "Seeds", "Score (95% interval)", "Minus the first"] + (["Published"] if published else [])
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        value, apart = (
            Estimate(*(float(row[name]) for name in names)).text()  # type: ignore[arg-type]
            for names in (("value", "low", "high"), ("minus_first", "minus_first_low", "minus_first_high"))
        )
        cells = [
            str(row["title"]),
            f"{row['seeds']} of {row['seeds_expected']}",
            value,
            "" if row is rows[0] else apart,
        ]
        theirs = row["published"]
        cells += [("-" if theirs is None else f"{theirs:.3f}")] if published else []
        lines.append(f"| {' | '.join(cells)} |")
    return tuple(lines)
