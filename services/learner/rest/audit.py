"""A line in the log for every request that would change something: who, what, and what became of it."""

from __future__ import annotations

import re

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.learner import acting
from services.learner.acting import Act
from services.learner.rest.guard import SAFE_METHODS

# Who knows all of a play's id may play.
_PLAY = re.compile(r"^(/plays/[^/]{8})[^/]*")
MAX_PATH = 200

log = structlog.get_logger(__name__)


class Audited:
    """Logs `change_asked` for changes; steering a play that is under way is none.

    Args:
        app: The application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with acting.answering(Act()) as act:
            try:
                await self._app(scope, receive, watch)
            finally:
                steering = status < 400 and scope["path"].startswith("/plays/") and scope["method"] != "DELETE"
                if scope["method"] not in SAFE_METHODS and not steering:
                    person = act.person
                    log.info(
                        "change_asked",
                        who=person.name or None if person else None,
                        role=person.role.value if person else None,
                        method=scope["method"][:MAX_PATH],
                        path=_PLAY.sub(r"\1", scope["path"])[:MAX_PATH],
                        id=act.subject or None,
                        status=status,
                        outcome="done" if status < 400 else "refused" if status < 500 else "failed",
                    )
