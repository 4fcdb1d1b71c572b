"""What strangers do to a server: streams that say nothing, bytes that are no message, more calls than it can answer."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from newt.errors import ExhaustedError, InvalidInputError, NotFoundError, UnavailableError
from newt.wire import lanes
from newt.wire.channels import CHANNEL_OPTIONS, connect
from newt.wire.server import PortInUseError, Server
from newt.wire.status import MAX_TEXT_BYTES, from_rpc_error, shortened
from newt.wire.v1 import weights_pb2, weights_pb2_grpc

SERVICE = "newt.v1.WeightsService"
STREAMS = 4


class Servicer(weights_pb2_grpc.WeightsServiceServicer):
    """Waits where it is told to."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def Retire(self, request: weights_pb2.RetireRequest, context: grpc.ServicerContext) -> weights_pb2.RetireResponse:  # noqa: N802
        if request.model_id == "wait":
            self.release.wait(20)
        if request.model_id.startswith("missing"):
            raise NotFoundError(f"no model {request.model_id!r}; publish it first")
        return weights_pb2.RetireResponse()

    def Publish(  # noqa: N802
        self, request_iterator: Iterator[weights_pb2.PublishRequest], context: grpc.ServicerContext
    ) -> weights_pb2.PublishResponse:
        return weights_pb2.PublishResponse(subscribers=sum(1 for _ in request_iterator))

    def Subscribe(  # noqa: N802
        self, request: weights_pb2.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[weights_pb2.SubscribeResponse]:
        yield weights_pb2.SubscribeResponse(retired_model_id="first")
        context.add_callback(self.release.set)
        self.release.wait(20)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def server(servicer: Servicer) -> Iterator[Server]:
    server = Server(SERVICE, "127.0.0.1", 0, max_threads=2, max_streams=STREAMS, env_prefix="NEWT_TEST_")
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(servicer, server.grpc)
    server.start()
    server.set_ready(True)
    yield server
    servicer.release.set()
    assert server.stop(0.2), "a call outlived its cancellation"


@contextmanager
def idle_stream(address: str) -> Iterator[grpc.Call]:
    """A Publish that sends nothing."""
    over = threading.Event()

    def nothing() -> Iterator[weights_pb2.PublishRequest]:
        over.wait()
        yield from ()

    with connect(address, one_replica=True) as channel:
        call = weights_pb2_grpc.WeightsServiceStub(channel).Publish.future(nothing(), timeout=30)
        yield call
        call.cancel()
        over.set()


def healthy(address: str) -> bool:
    with connect(address, one_replica=True) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=2)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def retire(address: str, model_id: str = "x") -> None:
    with connect(address, one_replica=True) as channel:
        try:
            stub = weights_pb2_grpc.WeightsServiceStub(channel)
            stub.Retire(weights_pb2.RetireRequest(model_id=model_id), timeout=2)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_surplus_streams_are_refused_and_name_the_limit(server: Server) -> None:
    with ExitStack() as held:
        calls = [held.enter_context(idle_stream(server.address)) for _ in range(STREAMS + 10)]
        until(lambda: sum(call.done() for call in calls) == 10)
        refused = [call.exception() for call in calls if call.done()]
        assert all(isinstance(from_rpc_error(error), ExhaustedError) for error in refused)
        assert f"all {STREAMS} streams" in refused[0].details()
        assert "NEWT_TEST_MAX_STREAMS" in refused[0].details()
        assert healthy(server.address)
        retire(server.address)
    until(lambda: _publishes(server.address))


def _publishes(address: str) -> bool:
    with connect(address, one_replica=True) as channel:
        try:
            weights_pb2_grpc.WeightsServiceStub(channel).Publish(iter([weights_pb2.PublishRequest()]), timeout=2)
        except grpc.RpcError:
            return False
    return True


def test_an_idle_stream_makes_room_and_a_busy_one_does_not(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "IDLE_S", 0.3)
    with connect(server.address) as channel, ExitStack() as held:
        waiting = weights_pb2_grpc.WeightsServiceStub(channel).Subscribe(weights_pb2.SubscribeRequest(), timeout=20)
        next(waiting)  # From now on it waits for the server, not for its client.
        idle = [held.enter_context(idle_stream(server.address)) for _ in range(STREAMS - 1)]
        until(lambda: not _publishes(server.address))
        time.sleep(0.4)
        with idle_stream(server.address) as another:
            until(another.done)
            assert isinstance(from_rpc_error(another.exception()), UnavailableError)  # "call again"
        until(lambda: _publishes(server.address))
        assert [call.done() for call in idle].count(True) == 1
        assert waiting.is_active()


def test_watching_health_is_limited_and_takes_no_other_place(server: Server) -> None:
    with connect(server.address) as channel:
        watches = [
            health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
            for _ in range(50)
        ]
        until(lambda: sum(watch.done() for watch in watches) == 18)
        assert {watch.code() for watch in watches if watch.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert healthy(server.address)
        assert _publishes(server.address)


def test_calls_that_wait_do_not_hold_up_health(server: Server, servicer: Servicer) -> None:
    with connect(server.address) as channel:
        stub = weights_pb2_grpc.WeightsServiceStub(channel)
        calls = [stub.Retire.future(weights_pb2.RetireRequest(model_id="wait"), timeout=20) for _ in range(50)]
        until(lambda: any(call.done() for call in calls))
        refused = next(call for call in calls if call.done())
        assert isinstance(from_rpc_error(refused.exception()), ExhaustedError)
        assert healthy(server.address)
        assert _publishes(server.address)
        servicer.release.set()
        until(lambda: all(call.done() for call in calls))
    retire(server.address)


STOPPED = """
import sys, threading
from newt.wire.channels import connect
from newt.wire.v1 import weights_pb2_grpc

def nothing():
    threading.Event().wait()
    yield

stub = weights_pb2_grpc.WeightsServiceStub(connect(sys.argv[1]))
calls = [stub.Publish.future(nothing(), timeout=600) for _ in range(int(sys.argv[2]))]
print("open", flush=True)
threading.Event().wait()
"""


def test_a_client_that_was_stopped_loses_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: its kernel still answers for it, but it does not answer HTTP/2's pings."""
    quick = {"grpc.keepalive_time_ms": 1_000, "grpc.http2.ping_timeout_ms": 1_000}
    assert quick.keys() <= dict(CHANNEL_OPTIONS).keys()
    monkeypatch.setattr("newt.wire.server.CHANNEL_OPTIONS", list({**dict(CHANNEL_OPTIONS), **quick}.items()))
    server = Server(SERVICE, "127.0.0.1", 0, max_streams=STREAMS)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(Servicer(), server.grpc)
    server.start()
    command = [sys.executable, "-c", STOPPED, server.address, str(STREAMS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "open\n"
            until(lambda: not _publishes(server.address))
            client.send_signal(signal.SIGSTOP)
            until(lambda: _publishes(server.address))
        finally:
            client.kill()
    server.stop(0)


@pytest.mark.parametrize(
    ("method", "streams"),
    [
        (f"/{SERVICE}/Retire", False),
        (f"/{SERVICE}/Publish", True),
        (f"/{SERVICE}/Subscribe", False),
        ("/grpc.health.v1.Health/Check", False),
        ("/grpc.health.v1.Health/Watch", False),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", True),
    ],
)
def test_bytes_that_are_no_message_are_invalid_input(server: Server, method: str, streams: bool) -> None:
    """The server fixture then finds every call ended: grpcio itself would wait for the message for ever."""
    with connect(server.address) as channel:
        call = channel.stream_stream(method, None, None)(iter([b"\xff\xff"]), timeout=5)
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidInputError), caught.value
    assert error.field == "request"
    assert healthy(server.address)


def test_long_texts_arrive_shortened(server: Server) -> None:
    with pytest.raises(NotFoundError) as caught:
        retire(server.address, "missing" + "ü" * 100_000)
    assert len(str(caught.value).encode()) <= MAX_TEXT_BYTES
    assert str(caught.value).startswith("no model 'missing")
    assert str(caught.value).endswith("publish it first")
    assert shortened("as it is\ud800") == "as it is?"


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_be_spelt_either_way(host: str) -> None:
    server = Server(SERVICE, host, 0)
    server.start()
    server.set_ready(True)
    assert server.address == f"[::1]:{server.port}"
    assert healthy(server.address)
    with pytest.raises(PortInUseError, match="another process has the port"):
        Server(SERVICE, host, server.port)
    server.stop(0)


@pytest.mark.parametrize(
    ("host", "said"),
    [("no.such.host.invalid", "known name"), ("192.0.2.1", "no address of this machine"), ("", "neither")],
)
def test_a_host_that_cannot_be_bound_says_why(host: str, said: str) -> None:
    with pytest.raises(PortInUseError, match=said) as caught:
        Server(SERVICE, host, 0)
    assert "another process" not in str(caught.value)
