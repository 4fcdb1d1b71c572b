"""How figures look, and how they are written."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind; the first variant, ours as a rule, has the strongest.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B", "#2F2F2F", "#B8A900")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "newt",
    "text.parse_math": False,  # names of others may have a $
}
DPI = 130

Row = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers in it.

    Attributes:
        stem: Name of its files.
        title: What it shows.
        figure: The figure; None for a table.
        rows: Its numbers.
        text: Lines of Markdown that go with it.
    """

    stem: str
    title: str
    figure: Figure | None
    rows: list[Row]
    text: tuple[str, ...] = ()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    mpl.use("Agg")
    with mpl.rc_context(_SETTINGS):
        return Figure(figsize=(width, height), layout="constrained")


def axes_of(figure: Figure, count: int, columns: int, *, alike: bool = False) -> list[Axes]:
    """So many panels, in rows of so many columns; the last row is filled up with nothing."""
    with mpl.rc_context(_SETTINGS):
        rows = math.ceil(count / columns)
        panels = figure.subplots(rows, min(columns, count), squeeze=False, sharex=alike, sharey=alike).flatten()
    for panel in panels[count:]:
        panel.set_visible(False)
    return list(panels[:count])


def legend(figure: Figure, panels: Iterable[Axes], columns: int = 6) -> None:
    """One legend above all panels, off the data; each label once."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        with mpl.rc_context(_SETTINGS):
            figure.legend(
                handles.values(),
                handles.keys(),
                loc="outside upper left",
                ncols=min(columns, len(handles)),
                frameon=False,
            )


def thousands(value: float, _: object = None) -> str:
    """Env steps on an axis: 500, 10k, 2M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def write(drawn: Drawn, folder: Path, stamp: str) -> list[Path]:
    """Writes STEM.png and STEM.svg, if there is a figure, and STEM.csv; returns them.

    Args:
        drawn: What to write.
        folder: Where.
        stamp: Of what runs, seeds and time it is; stands on the picture.
    """
    paths = [folder / f"{drawn.stem}.csv"]
    if drawn.figure is not None:
        paths = [folder / f"{drawn.stem}.png", folder / f"{drawn.stem}.svg", *paths]
        with mpl.rc_context(_SETTINGS):
            _stamp(drawn.figure, stamp)
            drawn.figure.savefig(folder / f"{drawn.stem}.png", dpi=DPI)
            # No date: the same numbers make the same file.
            drawn.figure.savefig(folder / f"{drawn.stem}.svg", metadata={"Date": None})
    write_csv(folder / f"{drawn.stem}.csv", drawn.rows)
    return paths


def _stamp(figure: Figure, text: str) -> None:
    """Writes a line below everything."""
    share = 0.2 / float(figure.get_figheight())
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, share, 1, 1 - share))  # type: ignore[call-arg]  # of constrained layout, which all have
    figure.text(0.008, 0.25 * share, text, fontsize=7.5, color="#666666", va="bottom")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table; what is missing is an empty field."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: str | int | float | None) -> str | int:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
