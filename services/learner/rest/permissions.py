"""What users may change: what they own. Readers change nothing (rest.token), operators everything.

A route that is not named here is for operators; the tests hold that every route which changes something is named.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from newt.errors import ForbiddenError
from newt.runs.people import Role
from services.learner import acting
from services.learner.processes.learner import Learner
from services.learner.records.broken import BrokenRecordError
from services.learner.rest.guard import SAFE_METHODS

# What is made is one's own; what it is made from may be anybody's.
MAKING = frozenset(
    {
        "POST /runs",
        "POST /evaluations",
        "POST /runs/{run_id}/evaluate",
        "POST /demos",
        "POST /demos/features",
        "POST /runs/{run_id}/demos",
        "POST /plays",
        "PUT /checkpoints/{name}",
    }
)
# What the owner of something may do with it: route to kind and path parameter.
OWNING = {
    "PATCH /runs/{run_id}": ("run", "run_id"),
    "POST /runs/{run_id}/cancel": ("run", "run_id"),
    "POST /runs/{run_id}/resume": ("run", "run_id"),
    "DELETE /runs/{run_id}": ("run", "run_id"),
    "DELETE /runs/{run_id}/episodes": ("run", "run_id"),
    "DELETE /runs/{run_id}/checkpoints/{name}": ("run", "run_id"),
    "DELETE /evaluations/{job_id}": ("evaluation", "job_id"),
    "POST /demos/{name}/cancel": ("demonstrations", "name"),
    "DELETE /demos/{name}": ("demonstrations", "name"),
    "GET /plays/{play_id}/events": ("play", "play_id"),  # which takes it from whoever follows
    "PATCH /plays/{play_id}": ("play", "play_id"),
    "POST /plays/{play_id}/step": ("play", "play_id"),
    "POST /plays/{play_id}/reset": ("play", "play_id"),
    "POST /plays/{play_id}/imagine": ("play", "play_id"),
    "DELETE /plays/{play_id}": ("play", "play_id"),
}
OPERATING = frozenset({"DELETE /checkpoints/{name}"})  # nobody owns what was brought in


def permitted(learner: Learner) -> Callable[[Request], Awaitable[None]]:
    """A dependency of all routes: ForbiddenError, unless whoever asks may have what the route does."""

    async def check(request: Request) -> None:
        person = acting.person()
        if person is None or person.role is Role.OPERATOR:
            return
        route = f"{request.method} {request.scope['route'].path}"
        if route in OWNING:
            kind, parameter = OWNING[route]
            subject = request.path_params[parameter]
            owner = await run_in_threadpool(_owner, learner, kind, subject)
            if owner != person.name:
                what = f"{kind} {subject[:8] if kind == 'play' else subject}"
                whose = f"belongs to {owner}" if owner else "has no owner that is known"
                rest = f"{owner} and operators" if owner else "operators"
                raise ForbiddenError(f"{what} {whose}; you are {person.name}, and only {rest} may change it")
        elif request.method not in SAFE_METHODS and (route not in MAKING or person.role is not Role.USER):
            raise ForbiddenError(f"this is for operators; you are {person.name}, a {person.role}")

    return check


def _owner(learner: Learner, kind: str, subject: str) -> str | None:
    """Whose something is; None also where the record cannot be read. Raises NotFoundError, UnavailableError."""
    try:
        if kind == "run":
            return learner.records.runs.get(subject).owner
        if kind == "evaluation":
            return learner.records.evaluations.get(subject).owner
        if kind == "demonstrations":
            collection = learner.records.demos.find(subject)
            return collection.owner if collection else None
        return learner.plays.get(subject).owner
    except BrokenRecordError:
        return None
