"""The shared server over real gRPC: status mapping, health, reflection, metrics, limits, shutdown."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import REGISTRY

from newt import errors
from newt.wire.channels import connect
from newt.wire.limits import MAX_MESSAGE_BYTES
from newt.wire.server import LIVENESS, PortInUseError, Server
from newt.wire.status import from_rpc_error
from newt.wire.v1 import weights_pb2, weights_pb2_grpc

SERVICE = "newt.v1.WeightsService"
KNOWN: dict[str, errors.NewtError] = {
    "invalid": errors.InvalidInputError("model_id", "got 'invalid'"),
    "missing": errors.NotFoundError("no model 'missing'"),
    "exists": errors.AlreadyExistsError("in use"),
    "state": errors.PreconditionError("newer version held"),
    "lost": errors.LostError("start again"),
    "barred": errors.ForbiddenError("learners alone"),
    "full": errors.ExhaustedError("8 of 8 models"),
    "away": errors.UnavailableError("warming up"),
    "corrupt": errors.CorruptDataError("checksum differs"),
}


class Servicer(weights_pb2_grpc.WeightsServiceServicer):
    """Fails as told by the request."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.reading = threading.Event()

    def Retire(self, request: weights_pb2.RetireRequest, context: grpc.ServicerContext) -> weights_pb2.RetireResponse:  # noqa: N802
        if request.model_id in KNOWN:
            raise KNOWN[request.model_id]
        if request.model_id == "bug":
            raise ZeroDivisionError("the secret 1234")
        if request.model_id == "wait":
            self.release.wait(10)
        return weights_pb2.RetireResponse()

    def Publish(  # noqa: N802
        self, request_iterator: Iterator[weights_pb2.PublishRequest], context: grpc.ServicerContext
    ) -> weights_pb2.PublishResponse:
        for _ in request_iterator:
            self.reading.set()
        return weights_pb2.PublishResponse()

    def Subscribe(  # noqa: N802
        self, request: weights_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.SubscribeResponse]:
        yield weights_pb2.SubscribeResponse(retired_model_id="first")
        raise KNOWN[request.subscriber]


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def server(servicer: Servicer) -> Iterator[Server]:
    server = Server(SERVICE, "127.0.0.1", 0)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(servicer, server.grpc)
    server.start()
    server.set_ready(True)
    yield server
    servicer.release.set()
    server.stop(1)


@pytest.fixture
def stub(server: Server) -> Iterator[weights_pb2_grpc.WeightsServiceStub]:
    with connect(server.address) as channel:
        yield weights_pb2_grpc.WeightsServiceStub(channel)


def retire(stub: weights_pb2_grpc.WeightsServiceStub, model_id: str) -> weights_pb2.RetireResponse:
    return stub.Retire(weights_pb2.RetireRequest(model_id=model_id), timeout=5)


@pytest.mark.parametrize("name", list(KNOWN))
def test_errors_arrive_as_the_same_error(stub: weights_pb2_grpc.WeightsServiceStub, name: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        retire(stub, name)
    error = from_rpc_error(caught.value)
    assert type(error) is type(KNOWN[name])
    assert str(error) == str(KNOWN[name])


def test_errors_in_streams_arrive_after_what_was_sent(stub: weights_pb2_grpc.WeightsServiceStub) -> None:
    stream = stub.Subscribe(weights_pb2.SubscribeRequest(subscriber="missing"), timeout=5)
    assert next(stream).retired_model_id == "first"
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert isinstance(from_rpc_error(caught.value), errors.NotFoundError)


def test_a_bug_becomes_internal_without_its_text(stub: weights_pb2_grpc.WeightsServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        retire(stub, "bug")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "1234" not in caught.value.details()
    assert "internal error" in caught.value.details()


def count(method: str, code: str) -> float:
    labels = {"grpc_service": SERVICE, "grpc_method": method, "grpc_code": code}
    return REGISTRY.get_sample_value("grpc_server_handled_total", labels) or 0


def test_calls_are_counted_by_method_and_code(stub: weights_pb2_grpc.WeightsServiceStub) -> None:
    before = count("Retire", "OK"), count("Retire", "NOT_FOUND")
    retire(stub, "fine")
    with pytest.raises(grpc.RpcError):
        retire(stub, "missing")
    assert (count("Retire", "OK"), count("Retire", "NOT_FOUND")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("method", ["Retire", "Subscribe"])
def test_streams_are_not_among_the_calls_that_are_timed(stub: weights_pb2_grpc.WeightsServiceStub, method: str) -> None:
    def timed() -> list[float]:
        labels = {"grpc_service": SERVICE, "grpc_method": method}
        names = ("grpc_server_handling_seconds_count", "newt_grpc_stream_seconds_count")
        return [REGISTRY.get_sample_value(name, labels) or 0 for name in names]

    calls, streams = timed()
    if method == "Retire":
        retire(stub, "fine")
    else:
        with pytest.raises(grpc.RpcError):
            list(stub.Subscribe(weights_pb2.SubscribeRequest(subscriber="missing"), timeout=5))
    deadline = time.monotonic() + 10
    while timed() == [calls, streams] and time.monotonic() < deadline:  # the reply comes before its end is noted
        time.sleep(0.01)
    assert timed() == ([calls + 1, streams] if method == "Retire" else [calls, streams + 1])


def test_a_cancelled_request_stream_is_no_bug(
    stub: weights_pb2_grpc.WeightsServiceStub, servicer: Servicer, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = threading.Event()

    def requests() -> Iterator[weights_pb2.PublishRequest]:
        yield weights_pb2.PublishRequest()
        sent.wait(10)

    def handled() -> tuple[float, float]:
        # gRPC may show a servicer the end of the requests before it shows the cancellation: then the call counts as OK.
        return count("Publish", "CANCELLED") + count("Publish", "OK"), count("Publish", "INTERNAL")

    before = handled()
    call = stub.Publish.future(requests(), timeout=10)
    assert servicer.reading.wait(5)
    call.cancel()
    sent.set()
    deadline = time.monotonic() + 5
    while handled() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert handled() == (before[0] + 1, before[1])
    assert "rpc_failed" not in capsys.readouterr().out


def test_health_tells_alive_from_ready(server: Server) -> None:
    with connect(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def serving(name: str) -> bool:
            reply = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

        assert [serving(name) for name in (LIVENESS, SERVICE, "")] == [True, True, True]
        server.set_ready(False)
        assert [serving(name) for name in (LIVENESS, SERVICE, "")] == [True, False, False]


def test_reflection_lists_the_service(server: Server) -> None:
    # The library's client of the protocol asks without a deadline, which our channels refuse.
    with grpc.insecure_channel(server.address) as channel:
        assert SERVICE in ProtoReflectionDescriptorDatabase(channel).get_services()


def test_a_server_that_does_not_describe_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_GRPC_REFLECTION", "false")
    server = Server(SERVICE, "127.0.0.1", 0)
    server.start()
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        ProtoReflectionDescriptorDatabase(channel).get_services()
    server.stop(0)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_taken_port_is_named(server: Server) -> None:
    with pytest.raises(PortInUseError, match=f"127.0.0.1:{server.port}"):
        Server(SERVICE, "127.0.0.1", server.port)


def test_an_oversized_message_is_refused_and_the_server_lives_on(stub: weights_pb2_grpc.WeightsServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        retire(stub, "x" * (MAX_MESSAGE_BYTES + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    retire(stub, "fine")


def test_stop_lets_running_calls_finish(
    server: Server, servicer: Servicer, stub: weights_pb2_grpc.WeightsServiceStub
) -> None:
    call = stub.Retire.future(weights_pb2.RetireRequest(model_id="wait"), timeout=10)
    retire(stub, "fine")  # The waiting call was sent before this one, on the same connection.
    stopper = threading.Thread(target=server.stop, args=(5,))
    stopper.start()
    servicer.release.set()
    assert call.result(timeout=5) is not None
    stopper.join(5)
    assert not stopper.is_alive()
