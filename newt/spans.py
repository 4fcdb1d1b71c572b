"""Spans for OpenTelemetry, if OTEL_EXPORTER_OTLP_ENDPOINT says where to; otherwise nothing is imported or made.

A span begins where a request arrives in a process, as a child of what the request says of itself (newt.trace), and
takes its place for what comes next. There is one for a change that REST is asked for, one for the start of each process
that works on it, and one for the first call of each method that it leads to: none for every step and plan.
OpenTelemetry's own variables say the rest: headers, sampling, attributes.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import structlog

from newt.extras import missing
from newt.trace import Trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span as ExportedSpan
    from opentelemetry.trace import Tracer

PROTOCOL = "http/protobuf"
# Of one try to send spans and its repetitions; a process that ends waits so long for a receiver that is away.
TIMEOUT_S = 3.0
Attribute = str | int

_tracer: Tracer | None = None

log = structlog.get_logger(__name__)


class Span:
    """A piece of work that will be exported when it has ended.

    Attributes:
        trace: What to follow in it: what was followed before, with this span as the parent.
    """

    def __init__(self, span: ExportedSpan, followed: Trace) -> None:
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._span = span
        told: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(told, set_span_in_context(span))
        self.trace = replace(followed, traceparent=told.get("traceparent", followed.traceparent))

    def end(self, error: str = "", *, name: str = "", attributes: dict[str, Attribute] | None = None) -> None:
        """Ends the work; later calls do nothing.

        Args:
            error: Why it failed, in a word; empty if it did not.
            name: What it turned out to be; empty for the name that it had.
            attributes: What else there is to say.
        """
        from opentelemetry.trace import StatusCode

        if name:
            self._span.update_name(name)
        self._span.set_attributes(attributes or {})
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        if self._span.is_recording():  # which a span that has ended is not
            self._span.end()


def export(service: str) -> None:
    """From now on exports this process's spans, if the environment says where to; call once, when logs are set up.

    What is in its way is logged and costs the spans alone: what watches a service must not keep it from working.

    Args:
        service: Name of the service, unless OTEL_SERVICE_NAME has another.
    """
    global _tracer
    if not _setting("ENDPOINT"):
        return
    try:
        _tracer = _make_tracer(service)
    except (ImportError, ValueError) as error:
        log.error("spans_not_exported", reason=str(error))


def _make_tracer(service: str) -> Tracer:
    protocol = _setting("PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; only {PROTOCOL} can be spoken (port 4318)")
    for module in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter"):
        what = missing(module, "otel")
        if what is not None:
            raise ImportError(what)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.namespace": "newt"}))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(timeout=None if _setting("TIMEOUT") else TIMEOUT_S))
    )
    return provider.get_tracer("newt")


def _setting(name: str) -> str:
    """An option of the exporter: that of traces, or else that of everything."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")


def begin(
    name: str, kind: Literal["server", "internal"], followed: Trace, attributes: dict[str, Attribute] | None = None
) -> Span | None:
    """Begins a span; None where none are exported.

    Args:
        name: What the work is, of few different names.
        kind: server: it answers a call; internal: it does not.
        followed: What asked for it; its traceparent says whose child the span is, and whether anybody wants to see it.
        attributes: What else there is to say, beside the ids of the request and the run.
    """
    if _tracer is None:
        return None
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    ids = {"newt.request_id": followed.request_id, **({"newt.run": followed.run} if followed.run else {})}
    span = _tracer.start_span(
        name,
        # Into an empty context: that of this thread may be somebody else's.
        TraceContextTextMapPropagator().extract({"traceparent": followed.traceparent}, Context()),
        SpanKind.SERVER if kind == "server" else SpanKind.INTERNAL,
        {**ids, **(attributes or {})},
    )
    return Span(span, followed)
