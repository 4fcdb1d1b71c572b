"""The route of whoever asks."""

from __future__ import annotations

from fastapi import APIRouter

from newt.runs.people import Caller
from services.learner import acting
from services.learner.people import ANYBODY


def people_routes() -> APIRouter:
    """Builds the route."""
    router = APIRouter(tags=["operations"])

    @router.get("/whoami")
    async def whoami() -> Caller:
        """Whose token was sent, and what it is good for."""
        person = acting.person() or ANYBODY
        return Caller(name=person.name or None, role=person.role, quotas=person.quotas)

    return router
