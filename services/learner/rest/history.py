"""Routes of what a run says: metrics, results and videos."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, StreamingResponse

from newt.errors import InvalidInputError, NotFoundError
from newt.extras import missing
from newt.processes import last_words
from newt.runs.logs import RunLog, RunLogs
from newt.runs.metrics_files import csv_of, jsonl_of, parquet_of
from newt.runs.record import MetricsHistory, MetricsRow, RunResults
from newt.runs.series import RunSeries, Source
from services.learner.processes.learner import Learner
from services.learner.records.series import SeriesReader
from services.learner.rest.events import POSITION
from services.learner.rest.files import VIDEO, Responses, video_response

ROWS = 1000
"""Of a page of the history."""
MAX_LOG_LINES, MAX_LOG_LINE = 1000, 4000
_TEXT, _BINARY = {"schema": {"type": "string"}}, {"schema": {"type": "string", "format": "binary"}}
_PARQUET = "application/vnd.apache.parquet"
_METRICS: Responses = {
    200: {"description": "Rows", "content": {"text/csv": _TEXT, "application/x-ndjson": _TEXT, _PARQUET: _BINARY}},
}
_FILES = {"csv": (csv_of, "text/csv"), "jsonl": (jsonl_of, "application/x-ndjson"), "parquet": (parquet_of, _PARQUET)}
_Name = Annotated[str, Query(max_length=256)]


def history_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    router = APIRouter(tags=["runs"])
    runs, history = learner.records.runs, learner.records.history
    series = SeriesReader(history)

    @router.get("/runs/{run_id}/metrics", response_model=MetricsHistory, responses=_METRICS)
    def get_metrics(
        run_id: str,
        source: Source | None = None,
        name: Annotated[list[str] | None, Query(description="Only these values.")] = None,
        after: Annotated[
            str, Query(pattern=f"^(-|{POSITION})$", description="Id of the last row that was read.")
        ] = "-",
        limit: Annotated[int, Query(ge=1, le=10_000, description="Most rows; of json alone.")] = ROWS,
        format: Annotated[
            Literal["json", "csv", "jsonl", "parquet"],
            Query(description="csv and parquet, a line for each value, and jsonl, a line for each row, have all rows."),
        ] = "json",
    ) -> Any:
        """The metrics history, oldest first."""
        runs.get(run_id)
        names = set(name) if name else None

        def page(after: str, limit: int) -> list[MetricsRow]:
            return history.metrics(run_id, after=after, limit=limit, source=source, names=names)

        def rows() -> Iterator[list[MetricsRow]]:
            position = after
            while found := page(position, ROWS):
                yield found
                position = found[-1].id

        if format == "json":
            return MetricsHistory(rows=page(after, limit))
        lacking = missing("pyarrow", "parquet") if format == "parquet" else None
        if lacking is not None:
            raise InvalidInputError("format", f"{lacking} where the learner runs; csv and jsonl need nothing")
        content, media_type = _FILES[format]
        headers = {"Content-Disposition": f'attachment; filename="{run_id}-metrics.{format}"'}
        return StreamingResponse(content(rows()), media_type=media_type, headers=headers)

    @router.get("/runs/{run_id}/series")
    def get_series(
        run_id: str,
        name: Annotated[list[_Name], Query(max_length=300, default_factory=list)],
        points: Annotated[int, Query(ge=4, le=5_000, description="Most points of each.")] = 500,
    ) -> RunSeries:
        """Metrics as columns, thinned so that peaks stay visible; without a `name`, the names that there are.

        `score` and `return` are means over tasks, of the latest training episode of each.
        """
        runs.get(run_id)
        if not name:
            return RunSeries(run_id=run_id, names=series.names(run_id), series=[])
        return RunSeries(run_id=run_id, names=[], series=series.read(run_id, name, points))

    @router.get("/runs/{run_id}/logs")
    def get_logs(
        run_id: str,
        process: Annotated[str | None, Query(max_length=64, description="Only this one: trainer, collector.")] = None,
        lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES, description="Most lines of each.")] = 200,
    ) -> RunLogs:
        """The last lines of what the run's processes say, of the last 64 KiB of each."""
        paths = learner.settings.folder.run_logs(runs.get(run_id).id)
        chosen = [path for path in paths if process in (None, path.stem)]
        if process is not None and not chosen:
            have = ", ".join(path.stem for path in paths) or "none yet"
            raise NotFoundError(f"run {run_id} has no log of {process!r}; it has: {have}")
        return RunLogs(logs=[_log(path, lines) for path in chosen])

    @router.get("/runs/{run_id}/results")
    def get_results(run_id: str) -> RunResults:
        """Scores per task: random policy, after pretraining, at the end; and all evaluations."""
        run = runs.get(run_id)
        evaluations, videos = history.evaluations(run_id), runs.videos(run_id)
        unreadable = max(0, history.count_evaluations(run_id) - len(evaluations))
        return RunResults.build(run_id, run.state, run.tasks, evaluations, videos, unreadable)

    @router.get("/runs/{run_id}/videos/{name}", response_class=FileResponse, responses=VIDEO)
    def get_video(run_id: str, name: str) -> FileResponse:
        """One video as MP4; names are in the results."""
        folder = learner.settings.folder.run(runs.get(run_id).id) / "videos"
        return video_response(folder, name, f"run {run_id} has no such video; GET /runs/{run_id}/results lists them")

    return router


def _log(path: Path, lines: int) -> RunLog:
    stat = path.stat()
    words = [line[:MAX_LOG_LINE] for line in last_words(path, lines=lines)]
    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
    return RunLog(process=path.stem, size_bytes=stat.st_size, modified_at=modified, lines=words)
