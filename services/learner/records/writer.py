"""What the processes of a run, or of a job, write to its record: each owns it for its attempt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from newt.runs.base import now
from newt.runs.record import ACTIVE, Evaluation, Run, RunState
from services.learner.records.history import NewEvent
from services.learner.records.jobs import J, JobStore, SupersededError
from services.learner.records.progress import CollectorProgress, TrainerProgress
from services.learner.records.store import Records

Part = Literal["trainer", "collector"]
R_co = TypeVar("R_co", covariant=True)


class Writer(Protocol[R_co]):
    """What every process may do with the record that it works for."""

    def get(self) -> R_co:
        """The whole record."""

    def fail(self, error: str) -> bool:
        """Ends the work with a cause; False if it has ended already."""


class JobWriter(Generic[J]):
    """What a job's process may write, for as long as the job is under way and its attempt the newest.

    Else every method raises SupersededError, or NotFoundError of a record that was deleted.
    """

    def __init__(self, store: JobStore[J], job_id: str, attempt: int) -> None:
        self.attempt = attempt
        self._store, self._job_id = store, job_id
        self._job: J | None = None

    def get(self) -> J:
        """The job, as it was when this process looked first, with what the process has written since."""
        if self._job is None:
            job = self._store.get(self._job_id)
            if not job.under_way or job.attempt != self.attempt:
                raise SupersededError(f"{self._store.kind} {self._job_id} is {job.state} in attempt {job.attempt}")
            self._job = job
        return self._job

    def report(self, progress: float, waiting_on: str | None) -> None:
        """Tells how far the work is, and what it waits for."""
        job, share = self.get(), round(min(progress, 1.0), 4)
        if (job.progress, job.waiting_on) != (share, waiting_on):
            self._write(progress=share, waiting_on=waiting_on)

    def succeed(self, **fields: Any) -> None:
        """Ends the job well, with its results."""
        self._write(state="succeeded", progress=1.0, waiting_on=None, finished_at=now(), **fields)

    def fail(self, error: str) -> bool:
        """Ends the job with a cause."""
        self._write(state="failed", error=error, waiting_on=None, finished_at=now())
        return True

    def _write(self, **fields: Any) -> None:
        job = self.get().model_copy(update=fields)
        if not self._store.replace(job, attempt=self.attempt):
            raise SupersededError(f"{self._store.kind} {self._job_id} has been ended")
        self._job = job


class RunWriter:
    """What a run's own process may write, for as long as its attempt is the newest (else SupersededError).

    Events and metrics are the exception: they are a history, to which a late process may still add.
    """

    def __init__(self, records: Records, run_id: str, attempt: int) -> None:
        self.run_id, self.attempt = run_id, attempt
        self._store, self._history = records.runs, records.history

    def get(self) -> Run:
        """The whole record."""
        return self._store.get(self.run_id)

    def trainer(self) -> TrainerProgress:
        """What the trainer last said in this attempt."""
        return TrainerProgress.parse(self._store.field(self.run_id, "trainer"))

    def progress(self, part: Part, progress: TrainerProgress | CollectorProgress) -> None:
        """Replaces one part of the progress."""
        self._store.write(self.run_id, {part: progress.model_dump_json()}, attempt=self.attempt)

    def enter(self, state: RunState) -> bool:
        """Moves between the active states; False if the run has been cancelled or has failed."""
        if self.get().state is state:
            return True
        return self._store.transition(self.run_id, state, ACTIVE, attempt=self.attempt)

    def succeed(self) -> bool:
        """Ends the run well."""
        finished = now().isoformat()
        return self._store.transition(
            self.run_id, RunState.SUCCEEDED, ACTIVE, attempt=self.attempt, fields={"finished_at": finished}
        )

    def fail(self, error: str) -> bool:
        """Ends the run with a cause."""
        return self._store.fail(self.run_id, error, attempt=self.attempt)

    def next_weights_version(self) -> int:
        """A version above all that the run has had, over all attempts."""
        return self._store.bump(self.run_id, self.attempt, "issued_version")

    def published(self, version: int) -> None:
        """Notes the newest version that planners can get."""
        self._store.write(self.run_id, {"weights_version": version}, attempt=self.attempt)

    def event(self, kind: str, message: str, data: Mapping[str, Any] | None = None) -> None:
        """Appends to the run's events."""
        self._history.add_event(self.run_id, NewEvent(kind, message, data or {}))

    def metrics(self, source: str, env_steps: int, updates: int, values: Mapping[str, float]) -> None:
        """Appends a row to the metrics history; values that are not finite are left out."""
        finite = {name: round(float(value), 6) for name, value in values.items() if math.isfinite(value)}
        fields = {"source": source, "env_steps": env_steps, "updates": updates, "values": json.dumps(finite)}
        self._history.add_metrics(self.run_id, fields)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Appends an evaluation, and its event; harmless to repeat."""
        self._store.add_evaluation(self.run_id, self.attempt, evaluation)

    def evaluations(self) -> list[Evaluation]:
        """All evaluations so far, in order."""
        return self._history.evaluations(self.run_id)

    def videos(self) -> dict[str, str]:
        """Names of the videos by task."""
        return self._store.videos(self.run_id)

    def set_videos(self, videos: Mapping[str, str]) -> None:
        """Stores the names of the videos."""
        self._store.write(self.run_id, {"videos": json.dumps(dict(videos))}, attempt=self.attempt)
