"""Request ids between a real client and a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc
import pytest
import structlog

from newt import trace
from newt.trace import Trace
from newt.wire.channels import connect
from newt.wire.server import Server
from newt.wire.tracing import REQUEST_ID, RUN
from newt.wire.v1 import weights_pb2, weights_pb2_grpc

SERVICE = "newt.v1.WeightsService"


class Servicer(weights_pb2_grpc.WeightsServiceServicer):
    """Notes what is being followed in each call, and at each message of a stream."""

    def __init__(self) -> None:
        self.followed: list[Trace | None] = []

    def Retire(self, request: weights_pb2.RetireRequest, context: grpc.ServicerContext) -> weights_pb2.RetireResponse:  # noqa: N802
        self.followed.append(trace.current())
        return weights_pb2.RetireResponse()

    def Publish(  # noqa: N802
        self, request_iterator: Iterator[weights_pb2.PublishRequest], context: grpc.ServicerContext
    ) -> weights_pb2.PublishResponse:
        for _ in request_iterator:
            self.followed.append(trace.current())
        return weights_pb2.PublishResponse()

    def Subscribe(  # noqa: N802
        self, request: weights_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.SubscribeResponse]:
        for number in range(3):
            self.followed.append(trace.current())
            yield weights_pb2.SubscribeResponse(retired_model_id=str(number))


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


def retire(stub: weights_pb2_grpc.WeightsServiceStub, *metadata: tuple[str, str]) -> None:
    stub.Retire(weights_pb2.RetireRequest(model_id="m"), timeout=10, wait_for_ready=True, metadata=metadata)


def test_calls_and_streams_carry_the_request_and_the_run(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer
) -> None:
    mine = Trace("request-1", "run-1")
    with trace.following(mine):
        retire(stub)
        assert len(list(stub.Subscribe(weights_pb2.SubscribeRequest(), timeout=10))) == 3
        stub.Publish(iter([weights_pb2.PublishRequest()] * 2), timeout=10)
    assert servicer.followed == [mine] * 6
    retire(stub)  # the threads that answered are free of it
    (last,) = servicer.followed[6:]
    assert last is not None
    assert last.request_id != mine.request_id
    assert not last.run


def test_every_thread_of_a_process_of_a_run_follows_its_request(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer
) -> None:
    trace.follow_in_process(Trace("request-2", "run-2"))
    try:
        thread = threading.Thread(target=retire, args=(stub,))
        thread.start()
        thread.join(20)
        with trace.following(Trace("request-3")):
            retire(stub)
    finally:
        trace.follow_in_process(None)
    assert servicer.followed == [Trace("request-2", "run-2"), Trace("request-3")]
    assert trace.current() is None


def test_one_line_per_request_and_method(stub: weights_pb2_grpc.WeightsServiceStub) -> None:
    with structlog.testing.capture_logs() as logs:
        for name in ("request-4", "request-5"):
            with trace.following(Trace(name)):
                for _ in range(20):
                    retire(stub)
        for _ in range(20):
            retire(stub)  # nobody's: a probe, a script
    seen = [line["method"] for line in logs if line["event"] == "first_call"]
    assert seen == [f"{SERVICE}/Retire"] * 2


@pytest.mark.parametrize("bad", ["", "two words", "x" * 65, 'quote"'])
def test_a_request_id_that_is_none_is_replaced(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer, bad: str
) -> None:
    retire(stub, (REQUEST_ID, bad), (RUN, "r" * 200))
    (followed,) = servicer.followed
    assert followed is not None
    assert trace.is_id(followed.request_id)
    assert followed.request_id != bad
    assert not followed.run
