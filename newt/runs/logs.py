"""What the processes of a run say. Bodies of the REST API."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from newt.runs.base import Record


class RunLog(Record):
    """The end of what one process has said, over all attempts."""

    process: str = Field(description="trainer, collector, or who else works for the run.")
    size_bytes: int = Field(description="Of the whole file.")
    modified_at: datetime
    lines: list[str] = Field(description="The last ones, oldest first: nearly all are JSON. Long ones are cut.")


class RunLogs(Record):
    """GET /runs/{id}/logs."""

    logs: list[RunLog] = Field(description="By process; none before the first has started.")
