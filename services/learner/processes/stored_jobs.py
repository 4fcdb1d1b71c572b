"""Kinds of work whose record is a newt.runs.jobs.Job: evaluations, collections of demonstrations.

Each is a small class on StoredJobKeeper, and a folder with what its process does (worker.main).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic

from newt.errors import ExhaustedError, NotFoundError
from newt.runs.base import now
from services.learner import acting
from services.learner.processes.jobs import JobKeeper, Phase
from services.learner.records.broken import BrokenRecordError
from services.learner.records.jobs import J, JobStore
from services.learner.settings import LearnerSettings


class StoredJobKeeper(JobKeeper, Generic[J]):
    """Keeps a kind of job whose records are in a JobStore: one process, whose crash ends the job with the cause.

    Attributes:
        module: What the process runs, with `--job ID --attempt N`.
        starts: How often a job is started, if the learner is restarted under it: 1 ends it then.

    Args:
        settings: Settings of the learner.
        store: The records.
        limit: Jobs under way at once; more are refused.
        grace_s: Time that a process has to stop before it is killed.
    """

    module: str
    starts: int = 1

    def __init__(self, settings: LearnerSettings, store: JobStore[J], *, limit: int, grace_s: float) -> None:
        self.kind = store.kind
        self.roles = (store.kind,)
        super().__init__(settings, limit=limit, grace_s=grace_s)
        self._store = store
        self._adding = threading.Lock()
        self._ours: set[str] = set()  # what this learner has begun

    def add(self, job: J, prepare: Callable[[], None] = lambda: None) -> J:
        """Takes a job on: its record is stored, and a process started soon.

        Args:
            job: Its first record.
            prepare: Called before, if there is room.

        Raises:
            ExhaustedError: Too many are under way.
            UnavailableError: Redis does not answer.
        """
        with self._adding:
            if sum(other.under_way for other in self._store.list_open().records) >= self._limit:
                raise ExhaustedError(f"{self._limit} of kind {self.kind} are under way, the limit; ask again later")
            prepare()
            self._ours.add(job.job_id)
            self._store.put(job)
        acting.about(job.job_id)
        self.wake()
        return job

    def end(self, job_id: str, state: str, error: str | None = None) -> bool:
        """Ends a job that is under way in its record; its process follows. False if it had ended."""
        job = self._store.get(job_id)
        fields = {"state": state, "error": error, "waiting_on": None, "finished_at": now()}
        ended = job.under_way and self._store.replace(job.model_copy(update=fields))
        self.wake()
        return ended

    def open_jobs(self) -> dict[str, Phase]:
        """Phases of the open jobs, oldest first."""
        return {job.job_id: _phase(job) for job in self._store.list_open().records}

    def phase(self, job_id: str) -> Phase:
        """The present phase of one job; one whose record is gone, or cannot be read, has ended."""
        try:
            return _phase(self._store.get(job_id))
        except (NotFoundError, BrokenRecordError):
            return Phase.ENDED

    def begin(self, job_id: str) -> int | None:
        """Claims a new job, or one that an earlier learner left, if it may be started again."""
        job = self._store.get(job_id)
        if job_id in self._ours:
            return job.attempt
        if job.attempt >= self.starts:
            times = "was restarted" if self.starts == 1 else f"was restarted {self.starts} times"
            self.end(job_id, "failed", f"the learner {times} under it; ask for it again")
            return None
        again = job.model_copy(update={"attempt": job.attempt + 1, "progress": 0.0})
        if not self._store.replace(again, attempt=job.attempt):
            return None
        self._ours.add(job_id)
        return again.attempt

    def request_id(self, job_id: str) -> str | None:
        """The request that asked for a job."""
        return self._store.get(job_id).request_id

    def command(self, job_id: str, attempt: int, role: str) -> list[str]:
        """The one process."""
        return [self.module, "--job", job_id, "--attempt", str(attempt)]

    def fail(self, job_id: str, attempt: int, error: str) -> None:
        """Ends a job in its record."""
        self.end(job_id, "failed", error)

    def blocked(self, job_id: str, reason: str) -> None:
        """Says what the job waits for."""
        self._store.replace(self._store.get(job_id).model_copy(update={"waiting_on": reason}))

    def repair(self) -> None:
        """Finds the open jobs of an older learner."""
        self._store.repair()

    def audit(self) -> None:
        """Reads all records."""
        self._store.list_all()


def _phase(job: J) -> Phase:
    return Phase.ACTIVE if job.under_way else Phase.ENDED
