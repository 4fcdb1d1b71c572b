"""REST routes of evaluations on request."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from newt.errors import NotFoundError
from newt.runs.evaluations import (
    CheckpointEvaluationRequest,
    EvaluationJob,
    EvaluationJobList,
    EvaluationReport,
    RunEvaluationRequest,
)
from services.learner.evaluator import REPORT_FILE, job_folder
from services.learner.jobs import EvaluationJobs
from services.learner.library import NEWEST
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore


def evaluation_routes(settings: LearnerSettings, store: RunStore, jobs: EvaluationJobs) -> APIRouter:
    """Builds the routes."""
    router = APIRouter()

    @router.post("/evaluations", status_code=202)
    def evaluate(request: CheckpointEvaluationRequest) -> EvaluationJob:
        """Evaluates any checkpoint on any task, beside whatever else is going on."""
        return jobs.start(request)

    @router.post("/runs/{run_id}/evaluate", status_code=202)
    def evaluate_run(run_id: str, request: RunEvaluationRequest) -> EvaluationJob:
        """The same for a checkpoint of this run."""
        reference = f"{store.get(run_id).id}/{request.checkpoint or NEWEST}"
        return jobs.start(CheckpointEvaluationRequest(**{**request.model_dump(), "checkpoint": reference}))

    @router.get("/evaluations")
    def list_evaluations(run_id: str | None = None) -> EvaluationJobList:
        """Evaluations that were asked for, or those of one run's checkpoints, oldest first."""
        return EvaluationJobList(evaluations=store.jobs(run_id))

    @router.get("/evaluations/{job_id}")
    def get_evaluation(job_id: str) -> EvaluationJob:
        """One evaluation: its state, and its result when it has succeeded."""
        return store.job(job_id)

    @router.get("/evaluations/{job_id}/report", response_model=EvaluationReport)
    def get_report(job_id: str) -> FileResponse:
        """Everything about an evaluation that has succeeded: settings, texts, every episode with its seed."""
        path = job_folder(settings, store.job(job_id).id) / REPORT_FILE
        if not path.is_file():
            raise NotFoundError(f"evaluation {job_id} has no report; it has one when its state is succeeded")
        return FileResponse(path, media_type="application/json", filename=f"evaluation-{job_id}.json")

    @router.get("/evaluations/{job_id}/videos/{name}", response_class=FileResponse)
    def get_video(job_id: str, name: str) -> FileResponse:
        """One video as MP4; names are in the evaluation."""
        folder = job_folder(settings, store.job(job_id).id) / "videos"
        return video_response(folder, name, f"evaluation {job_id} has no video {name!r}; its record lists them")

    @router.delete("/evaluations/{job_id}", status_code=204)
    def delete_evaluation(job_id: str) -> None:
        """Ends an evaluation, if it is under way, and removes its record and files."""
        jobs.delete(job_id)

    return router


def video_response(folder: Path, name: str, missing: str) -> FileResponse:
    """A file of this folder, and no other. Raises NotFoundError with the message `missing`."""
    path = folder / name
    if path.resolve().parent != folder.resolve() or not path.is_file():
        raise NotFoundError(missing)
    return FileResponse(path, media_type="video/mp4", filename=name)
