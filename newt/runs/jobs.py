"""What the records of all jobs have in common: of evaluations, of collections of demonstrations, of what comes next."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import Field

from newt.runs.base import OWNER, TRACEPARENT, Record
from newt.trace import Trace


class Job(Record):
    """Work that was asked for, as others see it. Subclasses declare `state` and how the record is named.

    Attributes:
        UNDER_WAY: The state in which a job has a process, or gets one; all others are final.
    """

    UNDER_WAY: ClassVar[str] = "running"

    state: str
    attempt: int = Field(1, description="Grows with every start of the job; writers of older ones are refused.")
    run_id: str | None = Field(None, description="Run whose checkpoint it uses; null without one.")
    created_at: datetime
    finished_at: datetime | None = None
    owner: str | None = Field(None, description=OWNER)
    request_id: str | None = Field(
        None, description="X-Request-Id of the request that asked for it; in all logs of what is done for it."
    )
    traceparent: str | None = Field(None, description=TRACEPARENT)
    progress: float = Field(0.0, description="Share of the work that is done.")
    waiting_on: str | None = Field(None, description="What it waits for, if something is missing.")
    error: str | None = Field(None, description="Why it failed.")

    @property
    def job_id(self) -> str:
        """What the job is called, among those of its kind."""
        raise NotImplementedError

    def origin(self) -> Trace | None:
        """What its processes follow; None in records of before there was anything to follow."""
        return Trace(self.request_id, self.run_id or "", self.traceparent or "") if self.request_id else None

    @property
    def under_way(self) -> bool:
        """Whether the job has a process, or gets one."""
        return self.state == self.UNDER_WAY

    @property
    def open(self) -> bool:
        """Whether anything is left to do for it."""
        return self.under_way
