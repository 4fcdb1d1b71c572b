"""Errors of the REST API: every error reply has the body newt.runs.record.ApiError, and a bounded size."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from newt import errors
from newt.runs.record import ApiError, FieldError

_STATUS: dict[type[errors.NewtError], int] = {
    errors.InvalidInputError: 422,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.AlreadyExistsError: 409,
    errors.PreconditionError: 409,
    errors.LostError: 409,
    errors.TooLargeError: 413,
    errors.ExhaustedError: 429,
    errors.UnavailableError: 503,
    errors.CorruptDataError: 409,
}
# What a person must change on the learner's machine. Anything else that a file system says is a surprise.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BARRED = frozenset(
    {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOTDIR}
    | {errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ESTALE}
)

REQUEST_ID_HEADER = "X-Request-Id"
MAX_MESSAGE = 1_000
MAX_FIELDS = 20
MAX_PLACE = 200

ERROR: dict[str, Any] = {"model": ApiError}
DISK_ERRORS: dict[int | str, dict[str, Any]] = {507: {**ERROR, "description": "The learner's disk is full"}}
"""Beside those of all routes; for the description of routes that write files."""

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Registers the handlers."""
    app.add_exception_handler(errors.NewtError, reply_to)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OSError, _disk_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _internal_error)


def field_errors(found: Sequence[Any]) -> list[FieldError]:
    """Pydantic's errors as field and message. An error of a whole model names its field itself."""
    result = []
    for error in found[:MAX_FIELDS]:
        where, *path = error["loc"] or ("body",)  # nowhere: the whole of what was given
        if error["type"] == "json_invalid":  # the place is a number of characters
            path, error = [], {"msg": f"not JSON: {(error.get('ctx') or {}).get('error', '')}"}
        elif where not in ("body", "query", "path", "header"):
            path = [where, *path]
        place = ".".join(str(part) for part in path) or str(where)
        context = error.get("ctx") or {}
        message = str(context.get("message") or error["msg"]).removeprefix("Value error, ")
        result.append(FieldError(field=_short(str(context.get("field") or place), MAX_PLACE), message=_short(message)))
    return result


def reply_to(request: Request, error: Exception) -> JSONResponse:
    """The reply that says what was wrong."""
    assert isinstance(error, errors.NewtError)
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    kind = type(error).__name__.removesuffix("Error")
    fields = []
    if isinstance(error, errors.InvalidInputError):
        message = str(error).removeprefix(f"{error.field}: ")
        fields = [FieldError(field=_short(error.field, MAX_PLACE), message=_short(message))]
    return _reply(status, ApiError(error=kind, message=_short(str(error)), fields=fields))


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    fields = field_errors(found)
    message = "; ".join(f"{field.field}: {field.message}" for field in fields[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return _reply(422, ApiError(error="InvalidInput", message=_short(message) + more, fields=fields))


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    where = "" if error.detail != phrase else f": {_short(request.url.path, MAX_PLACE)}; see /docs"
    reply = _reply(error.status_code, ApiError(error="Http", message=f"{_short(str(error.detail))}{where}"))
    reply.headers.update(error.headers or {})  # which methods are allowed, for one
    return reply


def _disk_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OSError)
    if error.errno not in _FULL | _BARRED:
        return _internal_error(request, error)
    full = error.errno in _FULL
    place = f" at {error.filename}" if error.filename else ""
    folder = getattr(request.app.state, "data_dir", "its data folder")
    remedy = "make room" if full else "mend that"
    log.error("disk_failed", path=request.url.path, error=str(error))
    message = f"the learner cannot write to {folder}: {error.strerror}{place}; {remedy} and retry"
    return _reply(507 if full else 503, ApiError(error="DiskFull" if full else "Disk", message=_short(message)))


def _gone(request: Request, error: Exception) -> JSONResponse:
    """Nobody reads it: the client left in the middle of its request."""
    return _reply(400, ApiError(error="ClientGone", message="the request was broken off"))


def _internal_error(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", "")
    log.error("request_failed", path=request.url.path, exc_info=error, request_id=request_id)
    message = f"internal error; the learner's log has the traceback under request_id {request_id}"
    reply = _reply(500, ApiError(error="Internal", message=message))
    reply.headers[REQUEST_ID_HEADER] = request_id  # it is made outside of what marks the others
    return reply


def _reply(status: int, error: ApiError) -> JSONResponse:
    return JSONResponse(error.model_dump(mode="json"), status)


def _short(text: str, most: int = MAX_MESSAGE) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
