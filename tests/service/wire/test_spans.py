"""Spans of real calls, as a real receiver gets them; and what is done for them where there is none: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import pytest
import structlog
from span_receiver import SpanReceiver, receiving

from newt import spans, trace
from newt.errors import NotFoundError
from newt.trace import Trace
from newt.wire.channels import connect
from newt.wire.server import Server
from newt.wire.v1 import weights_pb2, weights_pb2_grpc

SERVICE = "newt.v1.WeightsService"
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


class Servicer(weights_pb2_grpc.WeightsServiceServicer):
    """Notes the traceparent that calls from here would have; its stream goes on until its client goes."""

    def __init__(self) -> None:
        self.told: list[str | None] = []

    def Retire(self, request: weights_pb2.RetireRequest, context: grpc.ServicerContext) -> weights_pb2.RetireResponse:  # noqa: N802
        self.told.append(trace.traceparent())
        if request.model_id == "unknown":
            raise NotFoundError("no such model")
        return weights_pb2.RetireResponse()

    def Subscribe(  # noqa: N802
        self, request: weights_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.SubscribeResponse]:
        while context.is_active():
            yield weights_pb2.SubscribeResponse()
            time.sleep(0.05)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def stub(servicer: Servicer) -> Iterator[weights_pb2_grpc.WeightsServiceStub]:
    server = Server(SERVICE, "127.0.0.1", 0, max_threads=2)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(servicer, server.grpc)
    server.start()
    with connect(server.address) as channel:
        yield weights_pb2_grpc.WeightsServiceStub(channel)
    server.stop(1)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpanReceiver]:
    monkeypatch.setattr(spans, "_tracer", None)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        spans.export("hub")
        yield receiver


def retire(stub: weights_pb2_grpc.WeightsServiceStub, model: str = "m", *metadata: tuple[str, str]) -> None:
    request = weights_pb2.RetireRequest(model_id=model)
    stub.Retire(request, timeout=10, wait_for_ready=True, metadata=metadata)


def test_a_traceparent_goes_on_where_nothing_is_exported(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer
) -> None:
    with trace.following(Trace("request", "run", PARENT)):
        retire(stub)
        retire(stub)
    retire(stub)
    assert servicer.told == [PARENT, PARENT, None]


@pytest.mark.parametrize(
    "bad", ["", "x", PARENT.upper(), f"ff{PARENT[2:]}", f"00-{'0' * 32}-{PARENT_ID}-01", f"00-{TRACE_ID}-{'0' * 16}-01"]
)
def test_a_traceparent_that_is_none_is_ignored(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer, bad: str
) -> None:
    retire(stub, "m", ("traceparent", bad))
    assert servicer.told == [None]


def test_the_first_call_of_a_request_has_a_span(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer, receiver: SpanReceiver
) -> None:
    with trace.following(Trace("request-1", "run-1", PARENT)):
        for _ in range(5):
            retire(stub)
    with trace.following(Trace("request-2")), pytest.raises(grpc.RpcError):
        retire(stub, "unknown")
    retire(stub)  # nobody's
    first, alone = receiver.wait_for(lambda spans: len(spans) >= 2)
    assert (first.service, first.name, first.trace_id, first.parent_id) == (
        "hub",
        f"{SERVICE}/Retire",
        TRACE_ID,
        PARENT_ID,
    )
    assert first.attributes["newt.request_id"] == "request-1"
    assert first.attributes["newt.run"] == "run-1"
    assert not first.failed
    # A call within it would be its child; those after it are nobody's work anew.
    assert servicer.told[:2] == [f"00-{TRACE_ID}-{first.span_id}-01", PARENT]
    assert alone.failed
    assert alone.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert not alone.parent_id
    assert alone.trace_id != TRACE_ID


def test_the_span_of_a_stream_ends_with_its_first_reply(
    stub: weights_pb2_grpc.WeightsServiceStub, receiver: SpanReceiver
) -> None:
    with trace.following(Trace("request-3", traceparent=PARENT)):
        stream = stub.Subscribe(weights_pb2.SubscribeRequest(), timeout=60)
    for _ in range(2):
        next(stream)
    (span,) = receiver.wait_for(bool)
    assert span.name == f"{SERVICE}/Subscribe"
    assert stream.is_active()
    stream.cancel()


def test_programs_that_trace_themselves_say_what_they_want_to_see(
    stub: weights_pb2_grpc.WeightsServiceStub, receiver: SpanReceiver
) -> None:
    other = TRACE_ID[::-1]
    with structlog.testing.capture_logs() as logs:
        retire(stub, "m", ("traceparent", f"{PARENT[:-1]}0"))  # of a trace that is not sampled
        retire(stub, "m", ("traceparent", f"00-{other}-{PARENT_ID}-01"))
    (span,) = receiver.wait_for(bool)
    assert span.trace_id == span.attributes["newt.request_id"] == other
    assert not logs


def test_a_protocol_that_is_not_spoken_costs_the_spans_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_tracer", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with structlog.testing.capture_logs() as logs:
        spans.export("hub")
    (line,) = logs
    assert line["event"] == "spans_not_exported"
    assert "http/protobuf" in line["reason"]
    assert spans.begin("work", "internal", Trace("request")) is None


def run(code: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**inherited, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


IMPORTED = """
import sys
from newt import spans
from newt.trace import Trace
import newt.wire.server
spans.export("hub")
print(spans.begin("work", "internal", Trace("request")), any(name.startswith("opentelemetry") for name in sys.modules))
"""


def test_nothing_is_imported_where_nothing_is_exported() -> None:
    assert run(IMPORTED) == run(IMPORTED, OTEL_EXPORTER_OTLP_ENDPOINT="") == "None False\n"


ENDED = """
import time
from newt import spans
from newt.trace import Trace
spans.export("hub")
span = spans.begin("work", "internal", Trace("request"))
span.end()
span.end("twice")
"""


def test_a_receiver_that_is_away_costs_the_spans_alone() -> None:
    run(ENDED, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")


def test_a_process_that_ends_sends_what_it_has() -> None:
    with receiving() as receiver:
        run(ENDED, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        (span,) = receiver.wait_for(bool)
    assert (span.name, span.failed) == ("work", False)
