"""Errors to status codes: one server interceptor, and the way back on the client.

Requests are decoded here as well: grpcio answers bytes that are no message with INTERNAL, and forgets the thread that
waits for the message, so that the server would never stop.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError
from prometheus_client import Histogram

from newt import errors, trace
from newt.spans import Span
from newt.wire import metrics
from newt.wire.callers import Doorkeeper
from newt.wire.lanes import Lanes, OpenStream
from newt.wire.tracing import FirstCalls

MAX_TEXT_BYTES = 2_000
"""Of a message that goes with a status code: it travels in a header, whose size is limited."""

_CODES: dict[type[errors.NewtError], grpc.StatusCode] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.PreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LostError: grpc.StatusCode.ABORTED,
    errors.ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    errors.ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.CorruptDataError: grpc.StatusCode.DATA_LOSS,
}
_TYPES = {code: kind for kind, code in _CODES.items()}
_AWAY = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)

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


def from_rpc_error(error: grpc.RpcError) -> errors.NewtError:
    """The NewtError that a failed call stands for.

    UNAVAILABLE also covers a peer that cannot be reached, one that does not answer in time and one that drops a call
    because it ends, so a caller may treat all alike. Codes that no NewtError travels as give a plain one.
    """
    code = rpc_code(error)
    call: Any = error
    details = (call.details() or "") if code else repr(error)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        field, _, message = details.partition(": ")
        return errors.InvalidInputError(field, message)
    if code in _AWAY:
        return errors.UnavailableError(f"{code.name}: {details}" if code else details)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.NewtError(f"the server there has no such service, is it another one? ({details})")
    kind = _TYPES.get(code) if code else None
    return kind(details) if kind else errors.NewtError(f"{code.name}: {details}" if code else details)


def shortened(text: str) -> str:
    """A message of at most MAX_TEXT_BYTES: the middle is left out, so that its end still says what to do."""
    raw = text.encode(errors="replace")
    if len(raw) <= MAX_TEXT_BYTES:
        return raw.decode()
    mark = f" [... {len(raw) - MAX_TEXT_BYTES} bytes ...] ".encode()
    kept = MAX_TEXT_BYTES - len(mark)
    head, tail = raw[: kept * 2 // 3], raw[-(kept - kept * 2 // 3) :]
    return head.decode(errors="ignore") + mark.decode() + tail.decode(errors="ignore")


class StatusInterceptor(grpc.ServerInterceptor):
    """Maps errors to status codes, counts calls, gives them threads, and follows their requests (see newt.trace).

    NewtErrors keep their message. Bytes that are no message of the method become INVALID_ARGUMENT. Anything else
    becomes INTERNAL with an error id, and the traceback goes to the log under that id: an escaped exception would
    otherwise show its text to the caller.

    Args:
        lanes: Threads of the server.
        doorkeeper: Turns away who may not call a method; None for a server that asks nobody who they are.
    """

    def __init__(self, lanes: Lanes, doorkeeper: Doorkeeper | None = None) -> None:
        self._lanes, self._doorkeeper = lanes, doorkeeper
        self._first_calls = FirstCalls()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps the handler of a call."""
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        metadata = handler_call_details.invocation_metadata or ()
        many_requests, many_replies = handler.request_streaming, handler.response_streaming
        pool, refusal = self._lanes.choose(method, many_requests or many_replies)
        lives = metrics.GRPC_STREAM_SECONDS if many_requests or many_replies else metrics.GRPC_SECONDS
        decode = _decoder(method, handler.request_deserializer)
        behaviour: Callable[..., Any] = (
            handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream
        )
        if self._doorkeeper is not None:
            behaviour = self._doorkeeper.guarded(method, behaviour)

        def observed(context: grpc.ServicerContext) -> _Observed:
            return _Observed(method, context, lives, self._first_calls.follow(method, metadata))

        def refused(requests: Any, context: grpc.ServicerContext) -> NoReturn:
            with observed(context):
                raise cast(errors.NewtError, refusal)

        def one_to_one(request: bytes, context: grpc.ServicerContext) -> Any:
            with observed(context):
                return behaviour(decode(request), context)

        def many_to_one(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with observed(context), self._lanes.open(context) as stream:
                return behaviour(read(requests, stream), context)

        def to_many(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with observed(context) as call, self._lanes.open(context) as stream:
                for reply in behaviour(read(request, stream) if many_requests else decode(request), context):
                    stream.wait()
                    yield reply
                    stream.go_on()
                    call.answered()

        def read(requests: Iterator[bytes], stream: OpenStream) -> Iterator[Any]:
            while True:
                stream.wait()
                request = next(requests, None)
                stream.go_on()
                if request is None:
                    return
                yield decode(request)

        wrapped: Any
        make: Any
        if refusal is not None:
            # Whatever the method takes: as a stream, it is answered without waiting for a request.
            wrapped, make = refused, grpc.stream_stream_rpc_method_handler
        elif not many_replies:
            wrapped = many_to_one if many_requests else one_to_one
            make = grpc.stream_unary_rpc_method_handler if many_requests else grpc.unary_unary_rpc_method_handler
        else:
            wrapped = to_many
            make = grpc.stream_stream_rpc_method_handler if many_requests else grpc.unary_stream_rpc_method_handler
        wrapped.experimental_thread_pool = pool
        result: grpc.RpcMethodHandler[Any, Any] = make(wrapped, response_serializer=handler.response_serializer)
        return result


def _decoder(method: str, deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decode(request: bytes) -> Any:
        try:
            return deserialize(request)
        except DecodeError as error:
            raise errors.InvalidInputError(
                "request", f"got {len(request)} bytes that are no message of {method.lstrip('/')} ({error})"
            ) from error

    return decode


class _Observed:
    """Context of one call: metrics, its span, the end of following it, and the translation of what escapes."""

    def __init__(self, method: str, context: grpc.ServicerContext, lives: Histogram, span: Span | None) -> None:
        self._labels = tuple(method.lstrip("/").split("/", 1))
        self._context, self._lives, self._span = context, lives, span

    def __enter__(self) -> _Observed:
        self._start = time.perf_counter()
        return self

    def answered(self) -> None:
        """A reply of several is sent: the span of a stream ends with the first, as streams may live for days."""
        if self._span is not None:
            self._span.end()
            self._span = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, frames: object) -> None:
        code = grpc.StatusCode.OK
        try:
            if isinstance(error, errors.NewtError):
                code = code_of(error)
                self._context.abort(code, shortened(str(error)))
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
            self._lives.labels(*self._labels).observe(time.perf_counter() - self._start)
            if self._span is not None:
                failed = code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED)
                self._span.end(code.name if failed else "", attributes={"rpc.response.status_code": code.name})
            trace.follow(None)


def _cancelled(error: BaseException | None) -> bool:
    """Whether the client went away: a response generator is closed, and reading requests raises a bare RpcError.

    A cancellation can also look to the servicer like the end of the requests: then the call alone knows of it.
    """
    return isinstance(error, GeneratorExit) or (isinstance(error, grpc.RpcError) and rpc_code(error) is None)
