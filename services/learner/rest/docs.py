"""The page of the API's description: it works without any other host."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

ASSETS = "/docs/assets"
# The page sets itself up by a script of its own; nothing may come from, or go to, anywhere else.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
)


def docs_routes(title: str) -> APIRouter:
    """Builds `/docs`. The page's files come from the package that carries Swagger UI."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=title,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # else it shows a badge of a validator's site
        )
        page.headers["Content-Security-Policy"] = _POLICY
        return page

    return router


def assets() -> StaticFiles:
    """The page's scripts and styles, to be mounted at ASSETS."""
    return StaticFiles(packages=[("fastapi_swagger", "resources")])
