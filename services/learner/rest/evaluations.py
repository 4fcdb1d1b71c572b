"""Routes of evaluations on request."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse

from newt.errors import NotFoundError
from newt.runs.evaluations import (
    CheckpointEvaluationRequest,
    EvaluationJob,
    EvaluationJobList,
    EvaluationReport,
    RunEvaluationRequest,
)
from services.learner.checkpoints.folder import NEWEST
from services.learner.processes.learner import Learner
from services.learner.processes.quotas import within_job_quota
from services.learner.rest.described import knows_tasks
from services.learner.rest.errors import DISK_ERRORS
from services.learner.rest.files import VIDEO, video_response


def evaluation_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    known = [Depends(knows_tasks(learner))]
    router = APIRouter(tags=["evaluations"])
    records, keeper, folder = learner.records.evaluations, learner.evaluations, learner.settings.folder

    @router.post("/evaluations", status_code=202, responses=DISK_ERRORS, dependencies=known)
    def evaluate(request: CheckpointEvaluationRequest) -> EvaluationJob:
        """Evaluates any checkpoint on any task, beside whatever else is going on."""
        with within_job_quota(learner):
            return keeper.submit(request)

    @router.post("/runs/{run_id}/evaluate", status_code=202, responses=DISK_ERRORS, dependencies=known)
    def evaluate_run(run_id: str, request: RunEvaluationRequest) -> EvaluationJob:
        """The same for a checkpoint of this run."""
        reference = f"{learner.records.runs.get(run_id).id}/{request.checkpoint or NEWEST}"
        named = CheckpointEvaluationRequest(**{**request.model_dump(exclude_unset=True), "checkpoint": reference})
        with within_job_quota(learner):
            return keeper.submit(named)

    @router.get("/evaluations")
    def list_evaluations(run_id: str | None = None) -> EvaluationJobList:
        """Evaluations that were asked for, or those of one run's checkpoints, oldest first."""
        found = records.list_all()
        chosen = [job for job in found.records if run_id in (None, job.run_id)]
        return EvaluationJobList(evaluations=chosen, broken=found.broken if run_id is None else [])

    @router.get("/evaluations/{job_id}")
    def get_evaluation(job_id: str) -> EvaluationJob:
        """One evaluation: its state, and its result when it has succeeded."""
        return records.get(job_id)

    @router.get("/evaluations/{job_id}/report", response_model=EvaluationReport)
    def get_report(job_id: str) -> FileResponse:
        """Everything about an evaluation that has succeeded: settings, texts, every episode with its seed."""
        path = folder.evaluation_report(records.get(job_id).id)
        if not path.is_file():
            raise NotFoundError(f"evaluation {job_id} has no report; it has one when its state is succeeded")
        return FileResponse(path, media_type="application/json", filename=f"evaluation-{job_id}.json")

    @router.get("/evaluations/{job_id}/videos/{name}", response_class=FileResponse, responses=VIDEO)
    def get_video(job_id: str, name: str) -> FileResponse:
        """One video as MP4; names are in the evaluation."""
        videos = folder.evaluation(records.get(job_id).id) / "videos"
        return video_response(videos, name, f"evaluation {job_id} has no such video; its record lists them")

    @router.delete("/evaluations/{job_id}", status_code=204)
    def delete_evaluation(job_id: str) -> None:
        """Ends an evaluation, if it is under way, and removes its record and files."""
        keeper.delete(job_id)

    return router
