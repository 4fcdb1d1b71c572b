"""Evaluations on request: each is a process of its own beside the runs."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from newt import trace
from newt.errors import InvalidInputError, UnavailableError
from newt.runs.base import now
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.tasks.registry import knowing, select_tasks
from services.learner import acting
from services.learner.checkpoints.files import facts_of
from services.learner.checkpoints.library import CheckpointLibrary, hold
from services.learner.checkpoints.modes import check_mode, trained_mode
from services.learner.checkpoints.usable import check_usable
from services.learner.processes.stored_jobs import StoredJobKeeper
from services.learner.records.broken import BrokenRecordError
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings

MAX_JOBS = 2
STOP_GRACE_S = 5.0
DELETE_TIMEOUT_S = 20.0


class EvaluationKeeper(StoredJobKeeper[EvaluationJob]):
    """Starts requested evaluations and sees to their ends.

    One that was under way when the learner stopped starts again with the next: it is deterministic, and its checkpoint
    was put aside when it was asked for.

    Args:
        records: The records, evaluations among them.
        settings: Settings of the learner.
        library: Library of checkpoints.
    """

    module = "services.learner.evaluating.evaluator"
    starts = 3

    def __init__(self, records: Records, settings: LearnerSettings, library: CheckpointLibrary) -> None:
        super().__init__(settings, records.evaluations, limit=MAX_JOBS, grace_s=STOP_GRACE_S)
        self._library = library

    def submit(self, request: CheckpointEvaluationRequest) -> EvaluationJob:
        """Starts an evaluation.

        Raises:
            InvalidInputError: The tasks or instructions make no sense, or have no simulator here.
            NotFoundError: No such checkpoint, or none yet.
            PreconditionError: The checkpoint's agent cannot act here.
            ExhaustedError: Too many evaluations are under way.
            UnavailableError: Redis does not answer.
            OSError: The data folder cannot be written.
        """
        checkpoint = self._library.resolve(request.checkpoint)
        try:
            with knowing(facts_of(checkpoint.header)):
                tasks = select_tasks(request.tasks or checkpoint.header.tasks)
        except ValueError as error:
            raise InvalidInputError("tasks", str(error)) from error
        self._settings.require_sims({task.domain for task in tasks})
        check_usable(checkpoint.header, tasks, request.instructions)
        if "mode" not in request.model_fields_set:
            request = request.model_copy(update={"mode": trained_mode(checkpoint.header)})
        check_mode(checkpoint.header, request.mode)
        changes = {"checkpoint": checkpoint.reference, "tasks": [task.name for task in tasks]}
        job = EvaluationJob(
            id=uuid.uuid4().hex[:8],
            run_id=checkpoint.run_id,
            state="running",
            request=request.model_copy(update=changes),
            task_facts=tasks,
            checkpoint_sha256=checkpoint.header.sha256,
            created_at=now(),
            owner=acting.owner(),
            request_id=trace.request_id(),
            traceparent=trace.traceparent(),
        )
        return self.add(job, lambda: hold(checkpoint.path, self._settings.folder.evaluation_checkpoint(job.id)))

    def delete(self, job_id: str) -> None:
        """Ends an evaluation, if it is under way, and removes its videos and report, and its record at last.

        Raises:
            NotFoundError: No such evaluation.
            UnavailableError: It is still ending.
        """
        try:
            self.end(job_id, "failed", "it was deleted")
        except BrokenRecordError:
            self.wake()  # what it had of processes is stopped all the same
        if not self.await_end(job_id, DELETE_TIMEOUT_S):
            raise UnavailableError(f"evaluation {job_id} is ending; ask again in a moment")
        shutil.rmtree(self._settings.folder.evaluation(job_id), ignore_errors=True)
        self._store.delete(job_id)

    def log_path(self, job_id: str, role: str) -> Path:
        """Log of the process."""
        return self._settings.folder.evaluation_log(job_id)

    def settle(self, job_id: str) -> None:
        """Lets go of the checkpoint."""
        self._settings.folder.evaluation_checkpoint(job_id).unlink(missing_ok=True)
