"""Routes of demonstration sets, and of the collections that make them."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from newt.runs.demos import (
    AgentDemosRequest,
    DemoCollection,
    DemoSetInfo,
    DemoSetList,
    FeatureDemosRequest,
    ScriptedDemosRequest,
)
from newt.runs.record import Deleted
from services.learner.processes.learner import Learner
from services.learner.processes.quotas import within_job_quota
from services.learner.rest.described import knows_tasks


def demo_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    known = [Depends(knows_tasks(learner))]
    router = APIRouter(tags=["demonstrations"])
    sets, keeper = learner.demo_sets, learner.demos

    @router.get("/demos")
    def list_demos() -> DemoSetList:
        """Demonstration sets with their contents by task, and how each was collected."""
        return sets.list()

    @router.get("/demos/{name}")
    def get_demos(name: str) -> DemoSetInfo:
        """One demonstration set."""
        return sets.get(name)

    @router.post("/demos", status_code=202, dependencies=known)
    def collect_scripted_demos(request: ScriptedDemosRequest) -> DemoCollection:
        """Collects a new set from scripted experts. Asking again for the same is harmless."""
        with within_job_quota(learner, request.name):
            return keeper.submit_scripted(request)

    @router.post("/runs/{run_id}/demos", status_code=202)
    def collect_agent_demos(run_id: str, request: AgentDemosRequest) -> DemoCollection:
        """Collects a new set from the agent of a run. Asking again for the same is harmless.

        The agent plays twice as many episodes as are wanted; those whose return exceeds a threshold below the median
        are kept, if they succeed where success is what the task is about. A task with too few of them is left out.
        """
        run = learner.records.runs.get(run_id)
        with within_job_quota(learner, request.name):
            return keeper.submit_agent(run, request)

    @router.post("/demos/features", status_code=202, dependencies=known)
    def compute_demo_features(request: FeatureDemosRequest) -> DemoCollection:
        """Makes a set with image features of one without, by playing its episodes again. The old set stays."""
        with within_job_quota(learner, request.name):
            return keeper.submit_features(request)

    @router.post("/demos/{name}/cancel")
    def cancel_demos(name: str) -> DemoCollection:
        """Ends a collection and removes what it has stored."""
        return keeper.cancel(name)

    @router.delete("/demos/{name}")
    def delete_demos(name: str) -> Deleted:
        """Removes a set that no run uses."""
        return Deleted(episodes=sets.delete(name))

    return router
