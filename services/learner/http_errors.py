"""Errors of the REST API: every error reply has the body newt.runs.record.ApiError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from newt import errors
from newt.runs.record import ApiError, FieldError

_STATUS: dict[type[errors.NewtError], int] = {
    errors.InvalidInputError: 422,
    errors.NotFoundError: 404,
    errors.AlreadyExistsError: 409,
    errors.PreconditionError: 409,
    errors.LostError: 409,
    errors.ExhaustedError: 429,
    errors.UnavailableError: 503,
    errors.CorruptDataError: 500,
}

REQUEST_ID_HEADER = "X-Request-Id"

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(errors.NewtError, reply_to)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)


def field_errors(found: Sequence[Any]) -> list[FieldError]:
    """Pydantic's errors as field and message. An error of a whole model names its field itself."""
    result = []
    for error in found:
        path = ".".join(str(part) for part in error["loc"] if part not in ("body", "query", "path"))
        context = error.get("ctx") or {}
        message = str(context.get("message") or error["msg"]).removeprefix("Value error, ")
        result.append(FieldError(field=str(context.get("field") or path), message=message))
    return result


def _reply(status: int, error: ApiError) -> JSONResponse:
    return JSONResponse(error.model_dump(mode="json"), status)


def reply_to(request: Request, error: Exception) -> JSONResponse:
    """The reply that says what was wrong."""
    assert isinstance(error, errors.NewtError)
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    kind = type(error).__name__.removesuffix("Error")
    fields = []
    if isinstance(error, errors.InvalidInputError):
        fields = [FieldError(field=error.field, message=str(error).removeprefix(f"{error.field}: "))]
    return _reply(status, ApiError(error=kind, message=str(error), fields=fields))


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = field_errors(error.errors())
    message = "; ".join(f"{field.field}: {field.message}" if field.field else field.message for field in fields)
    return _reply(422, ApiError(error="InvalidInput", message=message, fields=fields))


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _reply(error.status_code, ApiError(error="Http", message=f"{error.detail}: {request.url.path}; see /docs"))


def _internal_error(request: Request, error: Exception) -> JSONResponse:
    # Outside of the middleware that follows the request and marks its replies.
    request_id = request.state.request_id
    log.error("request_failed", path=request.url.path, exc_info=error, request_id=request_id)
    message = f"internal error; the learner's log has the traceback under request_id {request_id}"
    reply = _reply(500, ApiError(error="Internal", message=message))
    reply.headers[REQUEST_ID_HEADER] = request_id
    return reply
