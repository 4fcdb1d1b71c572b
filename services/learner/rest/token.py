"""The bearer token of the REST API."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import FastAPI
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from newt.runs.record import ApiError
from services.learner.page import serving as page
from services.learner.rest.docs import ASSETS

# Health is asked by those who start containers, metrics by Prometheus; neither names anything but tasks and counts.
# The description of the API is that of the published code, and its two pages are where a browser enters the token.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/", "/docs", "/openapi.json"})
OPEN_FOLDERS = (f"{ASSETS}/", f"{page.ASSETS}/")
_SCHEME = "bearerToken"


def require_token(app: FastAPI, token: SecretStr) -> None:
    """Answers 401 to every request without the token, but for what is open, and says so in the API's description.

    It comes before routing and before any body is read: without a token nobody learns which runs exist.

    Args:
        app: App with all of its routes.
        token: What `Authorization: Bearer ...` must have.
    """
    # Appended, not added: inside of the middleware that counts requests, so that refusals are counted too.
    app.user_middleware.append(Middleware(_Gate, token=token))
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()  # kept by the app
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes[_SCHEME] = {"type": "http", "scheme": "bearer", "description": "NEWT_API_TOKEN of the learner."}
            for path, operations in document["paths"].items():
                if path in OPEN_PATHS:
                    continue
                for operation in operations.values():
                    operation["security"] = [{_SCHEME: []}]
                    operation["responses"]["401"] = {"description": "No token, or a wrong one"}
        return plain()

    app.openapi = described  # type: ignore[method-assign]


class _Gate:
    def __init__(self, app: ASGIApp, token: SecretStr) -> None:
        self._app = app
        self._token = token.get_secret_value().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS):
            await self._app(scope, receive, send)
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # In constant time, so that answers do not tell how much of a guess was right.
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            await self._app(scope, receive, send)
            return
        if given:
            challenge, message = 'Bearer realm="newt", error="invalid_token"', "the token is wrong"
        else:
            challenge, message = 'Bearer realm="newt"', "this API wants a token"
        error = ApiError(
            error="Unauthorized",
            message=f"{message}; send `Authorization: Bearer TOKEN`; the command line takes it from NEWT_API_TOKEN or "
            "NEWT_API_TOKEN_FILE",
        )
        reply = JSONResponse(error.model_dump(mode="json"), 401, {"WWW-Authenticate": challenge})
        await reply(scope, receive, send)
