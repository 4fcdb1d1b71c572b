"""Columns of the metrics of runs, kept in memory and read on: a chart asks for a few of them, often."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from newt.report.rewinds import superseded
from newt.report.thinning import thinned
from newt.runs.record import MetricsRow
from newt.runs.series import Series, Source
from services.learner.records.history import MAX_METRICS_ROWS, History

MAX_RUNS = 32
"""Runs whose columns are kept; the one that was not asked for longest is forgotten."""
MEANS = ("score", "return", "success")
"""Columns `score/TASK` and their kin have a mean over tasks: of the latest value of each that has one."""


@dataclass
class _Column:
    source: Source
    rows: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


class Columns:
    """The metrics of one run by name."""

    def __init__(self) -> None:
        self.position = "-"
        self._env_steps: list[int] = []
        self._updates: list[int] = []
        self._episodes: list[int | None] = []
        self._time: list[float] = []
        self._sources: list[Source] = []
        self._columns: dict[str, _Column] = {}
        self._latest: dict[str, dict[str, float]] = {name: {} for name in MEANS}
        self._sums = dict.fromkeys(MEANS, 0.0)

    def __len__(self) -> int:
        return len(self._time)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._columns)

    def add(self, row: MetricsRow) -> None:
        """Appends a row of the history."""
        place = len(self)
        self.position = row.id
        self._env_steps.append(row.env_steps)
        self._updates.append(row.updates)
        self._episodes.append(_episodes(row, self._episodes[-1] if self._episodes else None))
        self._time.append(row.time.timestamp())
        self._sources.append(row.source)
        changed = set()
        for name, value in row.values.items():
            self._append(name, row.source, place, value)
            kind, _, task = name.partition("/")
            if task and kind in self._latest:
                self._sums[kind] += value - self._latest[kind].get(task, 0.0)
                self._latest[kind][task] = value
                changed.add(kind)
        for kind in changed:
            self._append(kind, row.source, place, round(self._sums[kind] / len(self._latest[kind]), 6))

    def series(self, name: str, points: int, superseded: NDArray[np.bool_]) -> Series | None:
        """A column of at most so many points; None if there is none.

        Args:
            name: Name of the column.
            points: Most points.
            superseded: bool[rows], as `superseded` has it.
        """
        column = self._columns.get(name)
        if column is None:
            return None
        kept = thinned(np.array(column.values), points)
        rows = [column.rows[place] for place in kept]
        return Series(
            name=name,
            source=column.source,
            total=len(column.values),
            env_steps=[self._env_steps[row] for row in rows],
            updates=[self._updates[row] for row in rows],
            episodes=[self._episodes[row] for row in rows],
            time=[round(self._time[row], 3) for row in rows],
            values=[column.values[place] for place in kept],
            superseded=[bool(superseded[row]) for row in rows],
        )

    def superseded(self) -> NDArray[np.bool_]:
        """Of each row, whether a later one of the same writer is behind it: bool[rows].

        A trainer goes back to a checkpoint's updates; a collector's env steps are what replay keeps, if it keeps any.
        """
        found = np.zeros(len(self), bool)
        sources = np.array(self._sources)
        for source in set(self._sources):
            rows = np.flatnonzero(sources == source)
            counter = np.array(self._updates if source == "trainer" else self._env_steps)[rows]
            found[rows] = superseded(counter)
        return found

    def _append(self, name: str, source: Source, row: int, value: float) -> None:
        column = self._columns.setdefault(name, _Column(source))
        column.rows.append(row)
        column.values.append(value)


def _episodes(row: MetricsRow, before: int | None) -> int | None:
    """How many there were: the collector tells it, and for all that is told until the next time it is the last one."""
    told = row.values.get("episodes")
    return before if told is None else int(told)


@dataclass
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    columns: Columns = field(default_factory=Columns)


class SeriesReader:
    """Reads the metrics of runs as columns. Threads may share it.

    Args:
        history: Where the rows are.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def names(self, run_id: str) -> list[str]:
        """All names that a run's metrics have."""
        kept = self._of(run_id)
        with kept.lock:
            return self._read_on(run_id, kept).names()

    def read(self, run_id: str, names: Collection[str], points: int) -> list[Series]:
        """Some columns of at most so many points each; those without any are left out."""
        kept = self._of(run_id)
        with kept.lock:
            columns = self._read_on(run_id, kept)
            superseded = columns.superseded()
            found = [columns.series(name, points, superseded) for name in dict.fromkeys(names)]
        return [series for series in found if series is not None]

    def _of(self, run_id: str) -> _Kept:
        with self._lock:
            kept = self._kept.setdefault(run_id, _Kept())
            self._kept.move_to_end(run_id)
            while len(self._kept) > MAX_RUNS:
                self._kept.popitem(last=False)
        return kept

    def _read_on(self, run_id: str, kept: _Kept) -> Columns:
        if len(kept.columns) > 2 * MAX_METRICS_ROWS:  # Redis has let go of the older half
            kept.columns = Columns()
        columns = kept.columns
        for row in self._history.metrics(run_id, after=columns.position, limit=2 * MAX_METRICS_ROWS):
            columns.add(row)
        return columns
