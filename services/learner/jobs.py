"""Evaluations on request: each is a process of its own beside the run, watched by a thread."""

from __future__ import annotations

import threading
import uuid

import structlog

from newt.errors import ExhaustedError, InvalidInputError, NewtError, NotFoundError
from newt.runs.record import EvaluationJob, EvaluationRequest, Run, now
from services.learner.checkpoints import CheckpointFolder
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import Child

MAX_JOBS = 2

log = structlog.get_logger(__name__)


class EvaluationJobs:
    """Starts requested evaluations and records how they end.

    Args:
        store: Run records.
        settings: Of the learner.
    """

    def __init__(self, store: RunStore, settings: LearnerSettings) -> None:
        self._store = store
        self._settings = settings
        self._lock = threading.Lock()
        self._children: dict[str, Child] = {}
        self._stopping = False

    def recover(self) -> None:
        """Marks evaluations that an earlier process left running as failed: their processes died with it."""
        for run_id in self._store.list_ids():
            for job in self._store.jobs(run_id):
                if job.state == "running":
                    self._fail(job, "the learner was restarted; ask for the evaluation again")

    def start(self, run: Run, request: EvaluationRequest) -> EvaluationJob:
        """Starts an evaluation.

        Raises:
            InvalidInputError: A task is not the run's.
            NotFoundError: No such checkpoint, or none yet.
            ExhaustedError: Too many evaluations are under way.
        """
        foreign = [task for task in request.tasks or () if task not in run.tasks]
        if foreign:
            raise InvalidInputError("tasks", f"{', '.join(foreign)}: not among the run's tasks {', '.join(run.tasks)}")
        folder = CheckpointFolder(self._settings.data_dir / "runs" / run.id)
        if request.checkpoint is None:
            names = [checkpoint.name for checkpoint in folder.list()]
            if not names:
                raise NotFoundError(f"run {run.id} has no checkpoint yet; evaluate it later")
            request = request.model_copy(update={"checkpoint": names[-1]})
        assert request.checkpoint is not None
        folder.path(request.checkpoint)
        job = EvaluationJob(id=uuid.uuid4().hex[:8], run_id=run.id, state="running", request=request, created_at=now())
        with self._lock:
            if len(self._children) >= MAX_JOBS:
                raise ExhaustedError(f"{MAX_JOBS} evaluations are under way, which is the limit; ask again later")
            self._store.put_job(job)
            child = Child(
                "services.learner.evaluator",
                ["--run", run.id, "--job", job.id],
                self._settings,
                self._settings.data_dir / "runs" / run.id / "logs" / f"evaluation-{job.id}.log",
            )
            self._children[job.id] = child
        threading.Thread(target=self._watch, args=(job, child), name=f"job-{job.id}", daemon=True).start()
        return job

    def stop(self) -> None:
        """Ends all evaluations."""
        with self._lock:
            self._stopping = True
            children = list(self._children.values())
        for child in children:
            child.terminate()
        for child in children:
            if not child.wait(5.0):
                child.kill()

    def _watch(self, job: EvaluationJob, child: Child) -> None:
        while not child.wait(3600.0):
            pass
        with self._lock:
            self._children.pop(job.id, None)
        try:
            # The process itself records success, and failures that it understands.
            if self._store.job(job.run_id, job.id).state == "running":
                self._fail(job, "the learner was stopped" if self._stopping else f"the evaluation {child.epitaph()}")
        except NewtError as error:
            log.warning("evaluation_not_recorded", job=job.id, error=str(error))

    def _fail(self, job: EvaluationJob, error: str) -> None:
        self._store.put_job(job.model_copy(update={"state": "failed", "error": error}))
