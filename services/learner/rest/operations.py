"""Routes for those who operate the learner: health, readiness, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from newt.runs.record import Readiness
from services.learner.processes.learner import Learner


def operation_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    router = APIRouter(tags=["operations"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether this process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"model": Readiness, "description": "Something is missing"}})
    def readyz(response: Response) -> Readiness:
        """Whether runs can run: 503 and the names of what is missing, otherwise."""
        readiness = learner.dependencies.readiness()
        response.status_code = 200 if readiness.ready else 503
        return readiness

    @router.get("/dependencies")
    def get_dependencies() -> Readiness:
        """What /readyz says, with status 200 also while something is missing: for people, not for probes."""
        return learner.dependencies.readiness()

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"description": "Text format", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    def prometheus() -> Response:
        """Metrics, as Prometheus gets them from the metrics port."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router
