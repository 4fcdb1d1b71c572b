"""Figures that are not scores of tasks: open loop, embeddings of instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from newt.report.lines import Line, domains_of
from newt.report.statistics import Array
from newt.report.style import COLOURS, MARKERS, Drawn, Row, axes_of, legend, new_figure
from newt.runs.record import Evaluation
from newt.tasks.domains import DOMAINS
from newt.tasks.embeddings import embed_tasks
from newt.tasks.encoders import EncoderUnavailableError
from newt.tasks.registry import get_task

_MOST_NAMES = 40  # of tasks that are written beside their marks


def open_loop(line: Line, jobs: Sequence[Mapping[str, Evaluation]], stem: str, title: str) -> Drawn:
    """Open-loop return as a share of closed-loop return, after parts of a plan: dots are seeds, a line is their mean.

    Args:
        line: The variant.
        jobs: Results of each evaluation, by run id.
        stem: Name of the files.
        title: What is shown.
    """
    found: dict[tuple[str, int, float], list[tuple[int, float | None, float, float]]] = {}
    for results in jobs:
        for seed, records in line.records.items():
            for record in records:
                evaluation = results.get(record.run.id)
                for task, stats in (evaluation.open_loop if evaluation else {}).items():
                    for point in stats.points:
                        measured = (seed, point.fraction, point.open_return, point.closed_return)
                        found.setdefault((task, stats.plan_steps, point.share), []).append(measured)
    tasks = list(dict.fromkeys((task, steps) for task, steps, _ in found))
    figure = new_figure(7.2, 4.2)
    (panel,) = axes_of(figure, 1, 1)
    panel.axhline(1.0, color="#555555", linewidth=1, linestyle=":")
    rows: list[Row] = []
    text = ["| Task | Steps | After a third | Two thirds | All |", "|---|---|---|---|---|"]
    for number, (task, steps) in enumerate(tasks):
        shares = sorted(share for name, plan, share in found if (name, plan) == (task, steps))
        means = []
        for share in shares:
            told = found[task, steps, share]
            fractions = [fraction for _, fraction, _, _ in told if fraction is not None]
            whole = len(told) == len(line.seeds) == len(fractions)
            means.append(float(np.mean(fractions)) if whole else float("nan"))
            for seed, fraction, own, closed in told:
                row: Row = {"task": task, "plan_steps": steps, "share": share, "seed": seed, "fraction": fraction}
                rows.append(row | {"open_return": own, "closed_return": closed})
            colour = COLOURS[number % len(COLOURS)]
            panel.plot([share * steps] * len(fractions), fractions, ".", color=colour, markersize=4, alpha=0.6)
        marker = MARKERS[number % len(MARKERS)]
        x = [share * steps for share in shares]
        panel.plot(x, means, marker=marker, color=COLOURS[number % len(COLOURS)], linewidth=1.6, label=task)
        cells = ["-" if np.isnan(mean) else f"{mean:.2f}" for mean in means]
        text.append(f"| {task} | {steps} | {' | '.join(cells)} |")
    panel.set_xlabel("steps of the plan")
    panel.set_ylabel("open-loop return / closed-loop return")
    legend(figure, [panel], columns=4)
    return Drawn(stem, title, figure, rows, tuple(text))


def instructions(tasks: Sequence[str], encoder: str, stem: str, title: str) -> Drawn:
    """The first two principal components of the instructions' embeddings, a mark for each task."""
    try:
        vectors = embed_tasks([get_task(task) for task in tasks], encoder).vectors.astype(np.float64)
    except EncoderUnavailableError as error:
        return Drawn(stem, title, None, [], (f"Not drawn: {error}",))
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = left[:, :2] * sizes[:2]
    shares = sizes**2 / (sizes**2).sum()
    figure = new_figure(7.6, 5.4)
    (panel,) = axes_of(figure, 1, 1)
    rows: list[Row] = []
    for number, (domain, own) in enumerate(domains_of(tasks).items()):
        label = DOMAINS[domain].title if domain in DOMAINS else domain
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        x, y = places[own].T
        panel.plot(x, y, linestyle="", marker=marker, color=colour, markersize=6, alpha=0.8, label=label)
        rows += [{"task": tasks[i], "domain": domain, "x": float(places[i, 0]), "y": float(places[i, 1])} for i in own]
    panel.margins(0.15)
    if len(tasks) <= _MOST_NAMES:
        _name(panel, places, tasks)
    panel.set_xlabel(f"first principal component ({shares[0]:.0%} of the variance)")
    panel.set_ylabel(f"second ({shares[1]:.0%})")
    legend(figure, [panel], columns=5)
    return Drawn(stem, title, figure, rows, (f"Text encoder: {encoder}.",))


def _name(panel: Axes, places: Array, names: Sequence[str]) -> None:
    """Writes a name beside each mark, on the side where it covers the fewest of the others."""
    low, high = np.array([panel.get_xlim(), panel.get_ylim()]).T
    points = (places - low) / (high - low) * np.array([480.0, 320.0])  # about where they are, in points of the figure
    boxes: list[_Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for (x, y), place, name in zip(points, places, names, strict=True):
        width = 3.7 * len(name)
        found = []
        for up in (2.0, -8.0, 10.0, -16.0):
            for aside, left in (("left", x + 6), ("right", x - 6 - width)):
                box = (left, y + up, left + width, y + up + 7)
                found.append((sum(_overlap(box, other) for other in boxes), up, aside, box))
        _, up, aside, box = min(found, key=lambda item: item[0])
        boxes.append(box)
        offset = (6 if aside == "left" else -6, up)
        panel.annotate(name, place, offset, textcoords="offset points", ha=aside, fontsize=7, color="#444444")


_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
