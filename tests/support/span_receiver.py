"""Where OpenTelemetry's exporters send spans: an HTTP server that decodes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Received:
    """A span as it came."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, str | int]


class SpanReceiver(ThreadingHTTPServer):
    """Keeps all spans that are posted to /v1/traces."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Received] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, enough: Callable[[list[Received]], bool], timeout_s: float = 20.0) -> list[Received]:
        """All spans, as soon as they are enough."""
        deadline = time.monotonic() + timeout_s
        while not enough(list(self.spans)):
            assert time.monotonic() < deadline, self.spans
            time.sleep(0.05)
        return list(self.spans)


class _Handler(BaseHTTPRequestHandler):
    server: SpanReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            self.send_error(404)
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            assert of["service.namespace"] == "newt"
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
                    }
                    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                    failed = span.status.code == span.status.STATUS_CODE_ERROR
                    self.server.spans.append(Received(of["service.name"], span.name, *ids, failed, attributes))
        reply = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def receiving() -> Iterator[SpanReceiver]:
    with SpanReceiver() as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield receiver
        receiver.shutdown()
