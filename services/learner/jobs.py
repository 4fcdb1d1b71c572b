"""Evaluations on request: each is a process of its own beside the runs, watched by a thread."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Collection

import structlog

from newt import trace
from newt.errors import ExhaustedError, InvalidInputError, NewtError
from newt.runs.base import now
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.tasks.registry import UnknownTaskError, select_tasks
from services.learner.child import StopFlag, Stopped, patiently
from services.learner.evaluator import CHECKPOINT_FILE, job_folder
from services.learner.library import CheckpointLibrary, hold
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import Child
from services.learner.task_tables import check_usable

MAX_JOBS = 2
MAX_ATTEMPTS = 3
STOP_GRACE_S = 5.0

log = structlog.get_logger(__name__)


class EvaluationJobs:
    """Starts requested evaluations and records how they end.

    An evaluation that was under way when the learner stopped starts again with the next learner: it is deterministic,
    and its checkpoint was put aside when it was asked for. One whose process dies by itself ends with the cause.

    Args:
        store: Records.
        settings: Of the learner.
        library: Where checkpoints are.
    """

    def __init__(self, store: RunStore, settings: LearnerSettings, library: CheckpointLibrary) -> None:
        self._store = store
        self._settings = settings
        self._library = library
        self._lock = threading.Lock()
        self._children: dict[str, Child] = {}
        self._ours: set[str] = set()  # Jobs that this learner has started, recovered or deleted.
        self._stop = StopFlag()

    def recover(self) -> None:
        """Starts again what an earlier learner left running: the processes ended with it.

        Repeat it until it succeeds; what this learner has seen to already is left alone.

        Raises:
            UnavailableError: Redis does not answer.
        """
        for job in self._store.jobs():
            with self._lock:
                if job.state != "running" or job.id in self._ours or self._stop.is_set():
                    continue
                if job.attempt >= MAX_ATTEMPTS:
                    self._fail(job, f"the learner was restarted {MAX_ATTEMPTS} times under it; ask for it again")
                else:
                    self._launch(job.model_copy(update={"attempt": job.attempt + 1, "progress": 0.0}))

    def start(self, request: CheckpointEvaluationRequest) -> EvaluationJob:
        """Starts an evaluation.

        Raises:
            InvalidInputError: The tasks or instructions make no sense, or have no simulator here.
            NotFoundError: No such checkpoint, or none yet.
            PreconditionError: The checkpoint's agent cannot act here.
            ExhaustedError: Too many evaluations are under way.
        """
        checkpoint = self._library.resolve(request.checkpoint)
        try:
            tasks = select_tasks(request.tasks or checkpoint.header.tasks)
        except UnknownTaskError as error:
            raise InvalidInputError("tasks", str(error)) from error
        self._settings.require_sims({task.domain for task in tasks})
        check_usable(checkpoint.header, tasks, request.instructions)
        job = EvaluationJob(
            id=uuid.uuid4().hex[:8],
            run_id=checkpoint.run_id,
            state="running",
            request=request.model_copy(
                update={"checkpoint": checkpoint.reference, "tasks": [task.name for task in tasks]}
            ),
            checkpoint_sha256=checkpoint.header.sha256,
            created_at=now(),
            request_id=trace.request_id(),
        )
        with self._lock:
            if len(self._children) >= MAX_JOBS:
                raise ExhaustedError(f"{MAX_JOBS} evaluations are under way, which is the limit; ask again later")
            hold(checkpoint.path, job_folder(self._settings, job.id) / CHECKPOINT_FILE)
            self._launch(job)
        return job

    def delete(self, job_id: str) -> None:
        """Ends an evaluation, if it is under way, and removes its record, videos and report. Raises NotFoundError."""
        self._store.job(job_id)
        with self._lock:
            self._ours.add(job_id)
            child = self._children.pop(job_id, None)
        if child is not None:
            _end([child])
        shutil.rmtree(job_folder(self._settings, job_id), ignore_errors=True)
        self._store.delete_job(job_id)

    def stop(self) -> None:
        """Ends all processes; the evaluations start again with the next learner."""
        with self._lock:
            self._stop.set()
            children = list(self._children.values())
        _end(children)

    def _launch(self, job: EvaluationJob) -> None:
        """With the lock held."""
        self._store.put_job(job)
        child = Child(
            "services.learner.evaluator",
            ["--job", job.id],
            self._settings,
            job_folder(self._settings, job.id) / "evaluator.log",
        )
        self._children[job.id] = child
        self._ours.add(job.id)
        threading.Thread(target=self._watch, args=(job, child), name=f"job-{job.id}", daemon=True).start()

    def _watch(self, job: EvaluationJob, child: Child) -> None:
        while not child.wait(3600.0):
            pass
        with self._lock:
            deleted = self._children.get(job.id) is not child
            if deleted or self._stop.is_set():
                return
        try:
            patiently(lambda: self._settle(job, child), self._stop)
        except (NewtError, Stopped) as error:
            log.warning("evaluation_not_recorded", job=job.id, error=str(error) or "the learner was stopped")
        finally:
            with self._lock:
                self._children.pop(job.id, None)

    def _settle(self, job: EvaluationJob, child: Child) -> None:
        # The process itself records success, and failures that it understands.
        if self._store.job(job.id).state == "running":
            self._fail(job, f"the evaluation {child.epitaph()}")
        (job_folder(self._settings, job.id) / CHECKPOINT_FILE).unlink(missing_ok=True)

    def _fail(self, job: EvaluationJob, error: str) -> None:
        self._store.put_job(job.model_copy(update={"state": "failed", "error": error, "finished_at": now()}))


def _end(children: Collection[Child]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        if not child.wait(STOP_GRACE_S):
            child.kill()
            child.wait(STOP_GRACE_S)
