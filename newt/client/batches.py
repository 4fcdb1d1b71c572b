"""Training batches, read ahead from a replay service."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import grpc
import numpy as np

from newt.client.read_ahead import Batch, BatchOrder, ReadAhead, batch_seed
from newt.errors import UnavailableError
from newt.wire.episodes import Floats
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.peer import Peer
from newt.wire.tensors import decode
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
                self._deliver(read(response.groups, self._order.template, self._fetched, response))
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


def read(
    groups: Iterable[replay_pb2.SequenceGroup],
    request: replay_pb2.SampleRequest,
    index: int,
    facts: replay_pb2.SampleResponse,
) -> Batch:
    """Scatters the groups' valid columns into padded arrays.

    Args:
        groups: As received, those of a task next to each other.
        request: What was asked for.
        index: Index of the batch.
        facts: Counters to note in it; its own groups are not looked at.
    """
    H, B = request.horizon, request.batch_size
    obs = np.zeros((H + 1, B, PADDED_OBS_DIM), np.float32)
    action = np.zeros((H, B, PADDED_ACTION_DIM), np.float32)
    reward = np.empty((H, B), np.float32)
    terminated = np.zeros((H, B), np.bool_)
    task = np.empty(B, np.int32)
    demo = np.zeros(B, np.bool_)
    image: Floats | None = None
    low = 0
    for group in groups:
        rewards = decode(group.reward, "reward", dtype="f4", shape=[None, H])
        n = len(rewards)
        part = slice(low, low + n)
        observed = decode(group.obs, "obs", dtype="f4", shape=[n, H + 1, None])
        acted = decode(group.action, "action", dtype="f4", shape=[n, H, None])
        obs[:, part, : observed.shape[2]] = observed.swapaxes(0, 1)
        action[:, part, : acted.shape[2]] = acted.swapaxes(0, 1)
        reward[:, part] = rewards.T
        if group.HasField("terminated"):
            terminated[:, part] = decode(group.terminated, "terminated", dtype="?", shape=[n, H]).T
        if group.HasField("image"):
            features = decode(group.image, "image", dtype="f4", shape=[n, H + 1, None])
            if image is None:
                image = np.empty((H + 1, B, features.shape[2]), np.float32)
            image[:, part] = features.swapaxes(0, 1)
        task[part] = group.task_index
        demo[low : low + group.demo_count] = True
        low += n
    return Batch(
        obs=obs,
        action=action,
        reward=reward,
        terminated=terminated,
        task=task,
        demo=demo,
        image=image,
        index=index,
        env_steps=facts.env_steps,
        env_steps_taken=facts.env_steps_taken,
        acting_weights_version=facts.acting_weights_version,
        blocked_seconds=facts.blocked_seconds,
    )
