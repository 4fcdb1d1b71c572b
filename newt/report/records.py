"""Records of runs as a report needs them, kept in files so that it can be drawn again without the learner."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError

from newt.errors import NotFoundError
from newt.runs.base import Record
from newt.runs.evaluations import EvaluationJob, EvaluationJobList
from newt.runs.record import MetricsHistory, MetricsRow, Run, RunResults
from newt.runs.series import Source
from newt.runs.stored import read, read_json, to_json, unknown_fields

SUFFIX = ".run.json"
_ROWS = 5_000  # of a page of the history
_NAMED = 3  # runs on a picture; the others are counted


class RunRecord(Record):
    """Everything that a report knows of a run."""

    run: Run
    results: RunResults
    evaluations: list[EvaluationJob] = Field(default_factory=list, description="Evaluations of it that were asked for.")
    metrics: list[MetricsRow] = Field(
        default_factory=list, description="Rows of its history, as far as they were wanted."
    )


@dataclass
class Loaded:
    """Records, and what could not be read.

    Attributes:
        records: The records by id of the run.
        problems: A line for each file or run that cannot be read, and why.
    """

    records: dict[str, RunRecord] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Reader(Protocol):
    """Reads the REST API."""

    def get(self, path: str, **params: Any) -> Any:
        """GET; returns the decoded JSON."""


Metrics = Literal["none", "trainer", "all"]


def fetch(reader: Reader, run_ids: Iterable[str], metrics: Metrics = "none") -> Loaded:
    """Records of runs, from the learner.

    Args:
        reader: The REST API.
        run_ids: Which runs.
        metrics: Which rows of the history are wanted as well.

    Raises:
        NotFoundError: There is no such run.
    """
    loaded = Loaded()
    for run_id in run_ids:
        try:
            loaded.records[run_id] = RunRecord(
                run=read(Run, reader.get(f"/runs/{run_id}")),
                results=read(RunResults, reader.get(f"/runs/{run_id}/results")),
                evaluations=read(EvaluationJobList, reader.get("/evaluations", run_id=run_id)).evaluations,
                metrics=[] if metrics == "none" else _metrics(reader, run_id, metrics),
            )
        except ValidationError as error:
            loaded.problems.append(f"run {run_id} cannot be read: {_first(error)}")
    return loaded


def read_folder(place: Path) -> Loaded:
    """Records that `save` has written, of a folder or a file; what cannot be read, of another version say, is told of.

    Raises:
        NotFoundError: There are none.
    """
    paths = [place] if place.is_file() else sorted(place.glob(f"*{SUFFIX}"))
    if not paths:
        raise NotFoundError(
            f"no records in {place}: expected files *{SUFFIX}, as `newt runs export --format json` writes them, and "
            "`newt report` in records/"
        )
    loaded = Loaded()
    for path in paths:
        try:
            record = read_json(RunRecord, path.read_bytes())
            loaded.records[record.run.id] = record
            if unknown := unknown_fields(record.run.spec):
                names = ", ".join(unknown)
                loaded.problems.append(f"{path.name}: settings of a later version are left out of account: {names}")
        except (ValidationError, OSError) as error:
            why = _first(error) if isinstance(error, ValidationError) else str(error)
            loaded.problems.append(f"{path.name} cannot be read: {why}")
    return loaded


def save(records: Sequence[RunRecord], folder: Path) -> list[Path]:
    """Writes a file for each run; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{record.run.id}{SUFFIX}" for record in records]
    for record, path in zip(records, paths, strict=True):
        path.write_text(json.dumps(to_json(record), indent=1), encoding="utf-8")
    return paths


def stamp(records: Iterable[RunRecord]) -> str:
    """Of what runs, seeds and time a picture is: `run R, seed 1, 2026-11-28 12:00 UTC`."""
    runs = [record.run for record in records]
    if not runs:
        return "no runs"
    names = ", ".join(run.id for run in runs[:_NAMED]) + (f" and {len(runs) - _NAMED} more" if runs[_NAMED:] else "")
    seeds = sorted({run.spec.seed for run in runs})
    last = max(run.finished_at or run.started_at or run.created_at for run in runs)
    words = f"run{'s' if runs[1:] else ''} {names}, seed{'s' if seeds[1:] else ''} {', '.join(map(str, seeds))}"
    return f"{words}, {last:%Y-%m-%d %H:%M} UTC"


def pages(reader: Reader, run_id: str, after: str = "-", source: Source | None = None) -> Iterator[list[MetricsRow]]:
    """The rows of a run's history behind one, oldest first, as far as there are any."""
    while True:
        told = reader.get(f"/runs/{run_id}/metrics", after=after, source=source, limit=_ROWS)
        rows = read(MetricsHistory, told).rows
        if not rows:
            return
        yield rows
        after = rows[-1].id


def _metrics(reader: Reader, run_id: str, metrics: Metrics) -> list[MetricsRow]:
    source: Source | None = "trainer" if metrics == "trainer" else None
    return [row for rows in pages(reader, run_id, source=source) for row in rows]


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'the whole'}: {problem['msg']}"
