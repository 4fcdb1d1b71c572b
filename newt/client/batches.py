"""Training batches, read ahead from a replay service."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import grpc

from newt.client.packed import read
from newt.client.read_ahead import Batch, BatchOrder, ReadAhead, batch_seed
from newt.errors import InvalidInputError, UnavailableError
from newt.wire.peer import Peer
from newt.wire.v1 import replay_pb2, replay_pb2_grpc

# No call is without a deadline: a stream this old is replaced by a new one.
STREAM_SECONDS = 3600.0
# What grpcio says to the calls of a channel that its owner closes.
_CHANNEL_CLOSED = "Channel closed!"


class Batches(ReadAhead):
    """Batches of one service; made by ReplayClient.batches."""

    def __init__(self, peer: Peer, stub: replay_pb2_grpc.ReplayServiceStub, order: BatchOrder) -> None:
        self._peer, self._stub = peer, stub
        super().__init__(order)

    def _stream(self) -> None:
        ended, before = threading.Event(), self._fetched
        with self._changed:
            # A stream takes a place in the service: none before there is something to ask for.
            self._changed.wait_for(lambda: self._closed or self._has_room(self._fetched))
            if self._closed:
                return
            call = self._stub.Sample(self._requests(self._fetched, ended), timeout=STREAM_SECONDS)
            self._calls = [call]
        try:
            for response in call:
                self._deliver(batch_of([response], self._order.template, self._fetched, response))
        except grpc.RpcError as error:
            if channel_closed(call):
                self._closed = True
            if self._closed or ended_by_service(call):
                return
            translated = self._peer.error(error, STREAM_SECONDS)
            if self._fetched == before or not isinstance(translated, UnavailableError):
                raise translated from error
        finally:
            ended.set()
            with self._changed:
                self._changed.notify_all()

    def _requests(self, index: int, ended: threading.Event) -> Iterator[replay_pb2.SampleRequest]:
        """Requests from `index` on, as fast as the caller takes batches; runs in a thread of gRPC's."""
        order = self._order
        while index != order.stop_index:
            with self._changed:
                while not ended.is_set() and not self._has_room(index):
                    self._changed.wait()
            if ended.is_set():
                return
            request = replay_pb2.SampleRequest()
            request.CopyFrom(order.template)
            request.seed = batch_seed(order.seed, index)
            if order.limited:
                request.online_update = index
            yield request
            index += 1


def channel_closed(call: grpc.Call) -> bool:
    """Whether a call has failed because its channel's owner has closed that."""
    return call.code() is grpc.StatusCode.CANCELLED and call.details() == _CHANNEL_CLOSED


def ended_by_service(call: grpc.Call) -> bool:
    """Whether a stream has only grown old, or was cancelled: the service needed the place while nothing was asked."""
    return call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


def batch_of(
    responses: Sequence[replay_pb2.SampleResponse],
    request: replay_pb2.SampleRequest,
    index: int,
    facts: replay_pb2.SampleResponse,
) -> Batch:
    """Puts the parts of a batch together.

    Args:
        responses: The parts, as received.
        request: What was asked for.
        index: Index of the batch.
        facts: Counters to note in it.

    Raises:
        InvalidInputError: It is not what was asked for.
    """
    sequences = read(responses, request.horizon)
    if len(sequences.task) != request.batch_size:
        raise InvalidInputError("batch", f"got {len(sequences.task)} sequences, expected {request.batch_size}")
    return Batch(
        rows=sequences.rows,
        terminated=sequences.terminated,
        task=sequences.task,
        demo=sequences.demo,
        image=sequences.image,
        index=index,
        env_steps=facts.env_steps,
        env_steps_taken=facts.env_steps_taken,
        acting_weights_version=facts.acting_weights_version,
        blocked_seconds=facts.blocked_seconds,
    )
