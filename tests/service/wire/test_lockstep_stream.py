"""LockstepStream over real gRPC: everything that it takes from grpcio's inside, and every way in which it can end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest

from newt.errors import PreconditionError
from newt.wire.channels import connect
from newt.wire.lockstep import LockstepStream, StreamEndedError
from newt.wire.server import Server
from newt.wire.status import from_rpc_error
from newt.wire.tensors import encode
from newt.wire.v1 import sim_pb2, sim_pb2_grpc

SERVICE = "newt.v1.SimService"
Stream = LockstepStream[sim_pb2.StepRequest, sim_pb2.StepResponse]
Open = Callable[..., Stream]


class Servicer(sim_pb2_grpc.SimServiceServicer):
    """Echoes, or does what the session's name says."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.ended = threading.Event()

    def StepStream(  # noqa: N802
        self, request_iterator: Iterator[sim_pb2.StepRequest], context: grpc.ServicerContext
    ) -> Iterator[sim_pb2.StepResponse]:
        context.add_callback(self.ended.set)
        while context.is_active():
            try:
                request = next(request_iterator, None)
            except grpc.RpcError:
                return  # Cancelled by the client.
            if request is None:  # So is this: the end of the requests may be seen first.
                return
            if request.session_id == "refuse":
                raise PreconditionError("reset first")
            if request.session_id == "end":
                return
            if request.session_id == "hang":
                self.release.wait(10)
            yield sim_pb2.StepResponse(step_number=request.step_number, reward=request.action)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def server(servicer: Servicer) -> Iterator[Server]:
    server = Server(SERVICE, "127.0.0.1", 0)
    sim_pb2_grpc.add_SimServiceServicer_to_server(servicer, server.grpc)
    server.start()
    yield server
    servicer.release.set()
    server.stop(0)


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with connect(server.address) as channel:
        yield channel


@pytest.fixture
def open_stream(channel: grpc.Channel) -> Iterator[Open]:
    opened: list[Stream] = []

    def opener(timeout_s: float = 10.0, over: grpc.Channel = channel) -> Stream:
        opened.append(
            LockstepStream(
                over,
                f"/{SERVICE}/StepStream",
                sim_pb2.StepRequest.SerializeToString,
                sim_pb2.StepResponse.FromString,
                timeout_s,
            )
        )
        return opened[-1]

    yield opener
    for stream in opened:
        stream.close()


def ask(stream: Stream, sequence: int, name: str = "") -> sim_pb2.StepResponse:
    stream.send(sim_pb2.StepRequest(session_id=name, step_number=sequence))
    return stream.receive()


def check_ended(stream: Stream, code: grpc.StatusCode) -> StreamEndedError:
    """It says so at once, however often it is asked."""
    for _ in range(2):
        with pytest.raises(StreamEndedError) as caught:
            stream.receive()
        assert caught.value.code() is code
    with pytest.raises(StreamEndedError):
        ask(stream, 1)
    return caught.value


def test_every_request_gets_its_reply(open_stream: Open) -> None:
    one, two = open_stream(), open_stream()
    for sequence in range(1, 200):
        two.send(sim_pb2.StepRequest(step_number=1000 + sequence))
        assert ask(one, sequence).step_number == sequence
        assert two.receive().step_number == 1000 + sequence


def test_messages_may_be_large(open_stream: Open) -> None:
    action = encode(np.arange(8 * 1024 * 1024, dtype=np.uint8))
    stream = open_stream()
    stream.send(sim_pb2.StepRequest(step_number=1, action=action))
    assert stream.receive().reward == action


def test_an_error_of_the_server_keeps_its_code_and_message(open_stream: Open) -> None:
    stream = open_stream()
    ask(stream, 1)
    stream.send(sim_pb2.StepRequest(session_id="refuse"))
    error = from_rpc_error(check_ended(stream, grpc.StatusCode.FAILED_PRECONDITION))
    assert isinstance(error, PreconditionError)
    assert str(error) == "reset first"


def test_a_server_may_end_the_stream(open_stream: Open) -> None:
    stream = open_stream()
    stream.send(sim_pb2.StepRequest(session_id="end"))
    check_ended(stream, grpc.StatusCode.OK)


def test_a_reply_that_does_not_come(open_stream: Open, servicer: Servicer) -> None:
    stream = open_stream(timeout_s=0.5)
    for sequence in (1, 2):
        ask(stream, sequence)
        time.sleep(0.8)  # Nothing is due meanwhile.
    stream.send(sim_pb2.StepRequest(session_id="hang"))
    assert "no reply within 0.5 s" in check_ended(stream, grpc.StatusCode.DEADLINE_EXCEEDED).details()
    assert servicer.ended.wait(10)


def test_nobody_there(open_stream: Open) -> None:
    with connect("127.0.0.1:1") as channel:
        stream = open_stream(over=channel)
        stream.send(sim_pb2.StepRequest(step_number=1))
        check_ended(stream, grpc.StatusCode.UNAVAILABLE)


def test_a_server_that_goes_away(open_stream: Open, server: Server) -> None:
    stream = open_stream()
    ask(stream, 1)
    server.stop(0)
    stream.send(sim_pb2.StepRequest(step_number=2))
    check_ended(stream, grpc.StatusCode.UNAVAILABLE)


def test_closing_gives_up_what_is_due(open_stream: Open, servicer: Servicer) -> None:
    stream = open_stream()
    ask(stream, 1)  # It has reached the server.
    stream.send(sim_pb2.StepRequest(session_id="hang"))
    stream.close()
    assert servicer.ended.wait(10)
    stream.close()
    check_ended(stream, grpc.StatusCode.CANCELLED)


def test_closing_the_channel_ends_its_streams(open_stream: Open, server: Server) -> None:
    channel = connect(server.address)
    stream = open_stream(over=channel)
    ask(stream, 1)
    channel.close()
    with pytest.raises(StreamEndedError):
        ask(stream, 2)


def test_no_thread_stays(open_stream: Open) -> None:
    def watchers() -> int:
        return sum(thread.name == "stream-deadline" for thread in threading.enumerate())

    before = watchers()
    streams = [open_stream() for _ in range(5)]
    for stream in streams:
        ask(stream, 1)
        stream.close()
    deadline = time.monotonic() + 10
    while watchers() > before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
