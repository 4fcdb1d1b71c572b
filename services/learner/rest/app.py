"""The REST API, put together: a router for each resource, and what every request passes on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import Depends, FastAPI
from starlette.middleware import Middleware

import newt
from services.learner.page import serving as page
from services.learner.processes.learner import Learner
from services.learner.records.changes import Changes
from services.learner.rest import errors
from services.learner.rest.audit import Audited
from services.learner.rest.checkpoints import checkpoint_routes
from services.learner.rest.comparison import comparison_routes
from services.learner.rest.connections import MAX_HEAD_BYTES, PromptProtocol
from services.learner.rest.demos import demo_routes
from services.learner.rest.docs import ASSETS, assets, docs_routes
from services.learner.rest.errors import ERROR
from services.learner.rest.evaluations import evaluation_routes
from services.learner.rest.events import event_routes
from services.learner.rest.guard import BodyLimit, OwnNames
from services.learner.rest.history import history_routes
from services.learner.rest.operations import operation_routes
from services.learner.rest.overview import overview_routes
from services.learner.rest.people import people_routes
from services.learner.rest.permissions import permitted
from services.learner.rest.plays import play_routes
from services.learner.rest.presets import preset_routes
from services.learner.rest.requests import Followed
from services.learner.rest.runs import run_routes
from services.learner.rest.tasks import task_routes

TITLE = "Newt learner"


def create_app(learner: Learner, *, token: bool = False) -> FastAPI:
    """Builds the application; its OpenAPI description is served under /docs and /openapi.json.

    Args:
        learner: What it speaks for.
        token: Whether requests need a token (rest.token), so that any name may be used for the learner.
    """
    changes = Changes(learner.redis_url)
    settings = learner.settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reader = asyncio.create_task(changes.run())
        yield
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader

    app = FastAPI(
        title=TITLE,
        version=newt.__version__,
        description="Training runs of the Newt agent: start them, watch them, take the checkpoints home. Every request "
        "may bring an X-Request-Id; the reply has it, or a new one, and so have the logs of all services.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(permitted(learner))],
        responses=dict.fromkeys((400, 403, 404, 408, 409, 413, 421, 422, 429, 503), ERROR),
        middleware=[
            Middleware(Followed),
            Middleware(Audited),
            Middleware(OwnNames, host=settings.host, allowed=settings.allowed_hosts, token=token),
            Middleware(BodyLimit, max_upload_bytes=settings.max_checkpoint_bytes),
        ],
    )
    app.state.data_dir = settings.data_dir
    errors.install(app)
    for router in (
        run_routes(learner),
        preset_routes(),
        overview_routes(learner),
        history_routes(learner),
        comparison_routes(learner),
        event_routes(learner, changes),
        checkpoint_routes(learner),
        evaluation_routes(learner),
        demo_routes(learner),
        play_routes(learner),
        task_routes(learner),
        operation_routes(learner),
        people_routes(),
        docs_routes(TITLE),
        page.routes(),
    ):
        app.include_router(router)
    app.mount(ASSETS, assets())
    app.mount(page.ASSETS, page.assets())
    return app


def server(app: FastAPI) -> uvicorn.Server:
    """What serves the application; `run(sockets=[...])` does until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app,
        http=PromptProtocol,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
