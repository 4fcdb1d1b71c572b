"""Serves the page: one document at `/`, and its scripts and styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response

ASSETS = "/page"
_FOLDER = Path(__file__).parent / "static"
# Nothing comes from, or goes to, any other host; no script or style stands in the document itself.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # ask whether it has changed: scripts and API are of one version
}


def routes() -> APIRouter:
    """Builds `/`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def document() -> FileResponse:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    return router


def assets() -> StaticFiles:
    """The page's scripts and styles, to be mounted at ASSETS."""
    return _Assets(directory=_FOLDER)


class _Assets(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response
