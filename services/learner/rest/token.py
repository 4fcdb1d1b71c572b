"""The bearer tokens of the REST API: one for all, or one for each person."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from newt.runs.people import Role
from newt.runs.record import ApiError
from services.learner import acting
from services.learner.page import serving as page
from services.learner.people import ANYBODY, People, Person
from services.learner.rest.docs import ASSETS
from services.learner.rest.guard import SAFE_METHODS

# Health is asked by those who start containers, and names nothing; Prometheus asks at the metrics port.
# The description of the API is that of the published code, and its two pages are where a browser enters the token.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/", "/docs", "/openapi.json"})
OPEN_FOLDERS = (f"{ASSETS}/", f"{page.ASSETS}/")
_SCHEME = "bearerToken"


def require_token(app: FastAPI, tokens: SecretStr | People) -> None:
    """Answers 401 to every request without a token, but for what is open, and says so in the API's description.

    It comes before routing and before any body is read: without a token nobody learns which runs exist. So does the
    403 for readers who would change something; what users may change, rest.permissions says.

    Args:
        app: App with all of its routes.
        tokens: What `Authorization: Bearer ...` must have: the one token, or that of somebody.
    """
    # Appended, not added: inside of the middleware that counts requests, so that refusals are counted too.
    app.user_middleware.append(Middleware(_Gate, tokens=tokens))
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()  # kept by the app
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            whose = "NEWT_API_TOKEN of the learner." if isinstance(tokens, SecretStr) else "Your own."
            schemes[_SCHEME] = {"type": "http", "scheme": "bearer", "description": whose}
            for path, operations in document["paths"].items():
                if path in OPEN_PATHS:
                    continue
                for operation in operations.values():
                    operation["security"] = [{_SCHEME: []}]
                    operation["responses"]["401"] = {"description": "No token, or a wrong one"}
        return plain()

    app.openapi = described  # type: ignore[method-assign]


class _Gate:
    def __init__(self, app: ASGIApp, tokens: SecretStr | People) -> None:
        self._app, self._refresh = app, tokens.refresh if isinstance(tokens, People) else lambda: None
        self._find: Callable[[str], Person | None] = tokens.find if isinstance(tokens, People) else _one_token(tokens)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refresh()
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS):
            await self._app(scope, receive, send)
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        person = self._find(given.strip()) if scheme.lower() == "bearer" else None
        if person is None:
            await _unknown(given)(scope, receive, send)
            return
        acting.identified(person)
        if person.role is Role.READER and scope["method"] not in SAFE_METHODS:
            message = f"{person.name} is a reader, who may look and change nothing; ask an operator for another role"
            error = ApiError(error="Forbidden", message=message)
            await JSONResponse(error.model_dump(mode="json"), 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _one_token(token: SecretStr) -> Callable[[str], Person | None]:
    # In constant time, so that answers do not tell how much of a guess was right.
    expected = token.get_secret_value().encode()
    return lambda given: ANYBODY if hmac.compare_digest(given.encode(), expected) else None


def _unknown(given: str) -> JSONResponse:
    if given:
        challenge, message = 'Bearer realm="newt", error="invalid_token"', "the token is wrong"
    else:
        challenge, message = 'Bearer realm="newt"', "this API wants a token"
    error = ApiError(
        error="Unauthorized",
        message=f"{message}; send `Authorization: Bearer TOKEN`; the command line takes it from NEWT_API_TOKEN or "
        "NEWT_API_TOKEN_FILE",
    )
    return JSONResponse(error.model_dump(mode="json"), 401, {"WWW-Authenticate": challenge})
