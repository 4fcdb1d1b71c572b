"""Errors to status codes: one server interceptor, and the way back on the client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, cast

import grpc
import structlog

from newt import errors, trace
from newt.wire import metrics
from newt.wire.tracing import FirstCalls

_CODES: dict[type[errors.NewtError], grpc.StatusCode] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LostError: grpc.StatusCode.ABORTED,
    errors.ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.CorruptDataError: grpc.StatusCode.DATA_LOSS,
}
_TYPES = {code: kind for kind, code in _CODES.items()}

log = structlog.get_logger(__name__)


def code_of(error: errors.NewtError) -> grpc.StatusCode:
    """The status code that an error travels as."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.INTERNAL


def rpc_code(error: grpc.RpcError) -> grpc.StatusCode | None:
    """The status code of a failed call; None for an error that is not of a call."""
    # Every RpcError of a call is also a grpc.Call; the stubs cannot say so.
    call: Any = error
    code: grpc.StatusCode | None = call.code() if hasattr(call, "code") else None
    return code


def from_rpc_error(error: grpc.RpcError) -> errors.NewtError | grpc.RpcError:
    """The NewtError that a failed call stands for; the call's own error if it stands for none.

    UNAVAILABLE also covers a peer that cannot be reached, so a caller may treat both alike.
    """
    code = rpc_code(error)
    if code is None:
        return error
    call: Any = error
    details = call.details() or ""
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        field, _, message = details.partition(": ")
        return errors.InvalidInputError(field, message)
    kind = _TYPES.get(code)
    return kind(details) if kind else error


class StatusInterceptor(grpc.ServerInterceptor):
    """Maps errors to status codes, counts calls and follows their requests (see newt.trace).

    NewtErrors keep their message. Anything else becomes INTERNAL with an error id, and the traceback goes to the
    log under that id: an escaped exception would otherwise show its text to the caller.
    """

    def __init__(self) -> None:
        self._first_calls = FirstCalls()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of a call."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()

        def observed(context: grpc.ServicerContext) -> _Observed:
            self._first_calls.follow(method, metadata)
            return _Observed(method, context)

        def unary(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            def call(request: Any, context: grpc.ServicerContext) -> Any:
                with observed(context):
                    return behaviour(request, context)

            return call

        def streaming(behaviour: Callable[[Any, Any], Iterator[Any]]) -> Callable[[Any, Any], Iterator[Any]]:
            def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with observed(context):
                    yield from behaviour(request, context)

            return call

        make: Any
        if handler.unary_unary:
            make, wrapped = grpc.unary_unary_rpc_method_handler, unary(handler.unary_unary)
        elif handler.stream_unary:
            make, wrapped = grpc.stream_unary_rpc_method_handler, unary(handler.stream_unary)
        elif handler.unary_stream:
            make, wrapped = grpc.unary_stream_rpc_method_handler, streaming(handler.unary_stream)
        else:
            make, wrapped = grpc.stream_stream_rpc_method_handler, streaming(cast(Any, handler.stream_stream))
        result: grpc.RpcMethodHandler[Any, Any] = make(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return result


class _Observed:
    """Context of one call: metrics, the end of following it, and the translation of what escapes."""

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self._labels = tuple(method.lstrip("/").split("/", 1))
        self._context = context

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, frames: object) -> None:
        code = grpc.StatusCode.OK
        try:
            if isinstance(error, errors.NewtError):
                code = code_of(error)
                self._context.abort(code, str(error))
            elif _cancelled(error) or (error is None and not self._context.is_active()):
                code = grpc.StatusCode.CANCELLED
            elif kind is Exception:  # what abort() raises
                code = grpc.StatusCode.UNKNOWN
            elif error is not None:
                code = grpc.StatusCode.INTERNAL
                error_id = uuid.uuid4().hex[:12]
                log.error("rpc_failed", method="/".join(self._labels), error_id=error_id, exc_info=error)
                self._context.abort(code, f"internal error {error_id}; the service's log has the traceback")
        finally:
            metrics.GRPC_HANDLED.labels(*self._labels, code.name).inc()
            metrics.GRPC_SECONDS.labels(*self._labels).observe(time.perf_counter() - self._start)
            trace.follow(None)


def _cancelled(error: BaseException | None) -> bool:
    """Whether the client went away: a response generator is closed, and reading requests raises a bare RpcError.

    A cancellation can also look to the servicer like the end of the requests: then the call alone knows of it.
    """
    return isinstance(error, GeneratorExit) or (isinstance(error, grpc.RpcError) and rpc_code(error) is None)
