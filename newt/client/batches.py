"""Training batches, read ahead from the replay service."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from newt.errors import UnavailableError
from newt.wire.episodes import Floats
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.peer import Peer
from newt.wire.retry import until_available
from newt.wire.tensors import decode
from newt.wire.v1 import replay_pb2, replay_pb2_grpc

# No call is without a deadline: a stream this old is replaced by a new one.
_STREAM_SECONDS = 3600.0
# What grpcio says to the calls of a channel that its owner closes.
_CHANNEL_CLOSED = "Channel closed!"


@dataclass(frozen=True, eq=False)
class Batch:
    """B sequences of H+1 rows, zero-padded, time first. Sequences of one task are next to each other.

    Attributes:
        obs: float32[H+1, B, 128].
        action: float32[H, B, 16].
        reward: float32[H, B].
        terminated: bool[H, B], true where a transition ended the task itself.
        task: int32[B], index among the buffer's tasks.
        demo: bool[B], whether the sequence comes from a demo.
        image: float32[H+1, B, X], or None in state-only runs.
        index: Position of the batch in its iterator; for limited ones, the online update.
        env_steps: Transitions stored in the run when it was drawn.
        env_steps_taken: Steps taken by then, those of unfinished episodes included.
        acting_weights_version: Version of the weights that acted then; 0 for none.
        blocked_seconds: How long the service held it back for the limiter.
    """

    obs: Floats
    action: Floats
    reward: Floats
    terminated: npt.NDArray[np.bool_]
    task: npt.NDArray[np.int32]
    demo: npt.NDArray[np.bool_]
    image: Floats | None
    index: int
    env_steps: int
    env_steps_taken: int
    acting_weights_version: int
    blocked_seconds: float


class Batches:
    """Iterator over training batches; made by ReplayClient.batches, used as a context manager.

    A thread keeps requests in flight, reads replies and decodes them, so that `next` finds a batch ready. Requests
    and ready batches together never exceed `in_flight`. When the service goes away, the thread connects again and
    asks for the first batch that it has not got.
    """

    def __init__(
        self,
        peer: Peer,
        stub: replay_pb2_grpc.ReplayServiceStub,
        template: replay_pb2.SampleRequest,
        seed: int,
        limited: bool,
        first_index: int,
        count: int | None,
        in_flight: int,
        patience_s: float,
    ) -> None:
        if in_flight < 1:
            raise ValueError(f"in_flight: got {in_flight}, expected at least 1")
        self._peer, self._stub, self._template = peer, stub, template
        self._seed, self._limited = seed, limited
        self._stop_index = None if count is None else first_index + count
        self._in_flight, self._patience_s = in_flight, patience_s
        self._fetched = first_index  # Index of the next batch from the service ...
        self._taken = first_index  # ... and of the next one for the caller.
        self._ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._changed = threading.Condition()  # Guards _taken, _closed, _call and each stream's end.
        self._closed = False
        self._call: Any = None
        self._thread = threading.Thread(target=self._fetch, name="replay-batches", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch, in order; waits for the limiter and for data.

        Raises:
            StopIteration: All were read, or the iterator was closed.
            NewtError: The service refused the request, or stayed away for longer than the patience.
        """
        batch = self.take(None)
        assert batch is not None
        return batch

    def take(self, timeout_s: float | None) -> Batch | None:
        """The next batch as `next` gives it, or None if it is not there after `timeout_s` seconds."""
        try:
            item = self._ready.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            self._ready.put(item)  # Whoever asks again gets the same answer.
            raise item
        with self._changed:
            self._taken += 1
            self._changed.notify_all()
        return item

    def close(self) -> None:
        """Cancels what is on its way and ends the thread; batches not yet taken are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._call is not None:
                self._call.cancel()
        self._thread.join()
        while not self._ready.empty():
            self._ready.get()
        self._ready.put(StopIteration())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self) -> None:
        try:
            while not self._closed and self._fetched != self._stop_index:
                until_available(self._stream, time.monotonic() + self._patience_s, sleep=self._pause)
            self._ready.put(StopIteration())
        except Exception as error:
            self._ready.put(error)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _stream(self) -> None:
        """Reads batches from one stream until all are read, or it ends; raises why if it has brought none."""
        ended, before = threading.Event(), self._fetched
        with self._changed:
            # A stream takes a place in the service: none before there is something to ask for.
            self._changed.wait_for(lambda: self._closed or self._fetched < self._taken + self._in_flight)
            if self._closed:
                return
            self._call = self._stub.Sample(self._requests(self._fetched, ended), timeout=_STREAM_SECONDS)
        try:
            for response in self._call:
                self._ready.put(_decode(response, self._template, self._fetched))
                self._fetched += 1
        except grpc.RpcError as error:
            cancelled = self._call.code() is grpc.StatusCode.CANCELLED
            if cancelled and self._call.details() == _CHANNEL_CLOSED:
                self._closed = True
            if cancelled and not self._closed:  # By the service, which needed the place while we asked for nothing.
                return
            if self._closed or self._call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return
            translated = self._peer.error(error, _STREAM_SECONDS)
            if self._fetched == before or not isinstance(translated, UnavailableError):
                raise translated from error
        finally:
            ended.set()
            with self._changed:
                self._changed.notify_all()

    def _requests(self, index: int, ended: threading.Event) -> Iterator[replay_pb2.SampleRequest]:
        """Requests from `index` on, as fast as the caller takes batches; runs in a thread of gRPC's."""
        while index != self._stop_index:
            with self._changed:
                while not ended.is_set() and index >= self._taken + self._in_flight:
                    self._changed.wait()
            if ended.is_set():
                return
            request = replay_pb2.SampleRequest()
            request.CopyFrom(self._template)
            request.seed = batch_seed(self._seed, index)
            if self._limited:
                request.online_update = index
            yield request
            index += 1


def batch_seed(seed: int, index: int) -> int:
    """Seed in [0, 2**64) of one batch; different for different (seed, index)."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])


def _decode(response: replay_pb2.SampleResponse, request: replay_pb2.SampleRequest, index: int) -> Batch:
    """Scatters the groups' valid columns into padded arrays."""
    H, B = request.horizon, request.batch_size
    obs = np.zeros((H + 1, B, PADDED_OBS_DIM), np.float32)
    action = np.zeros((H, B, PADDED_ACTION_DIM), np.float32)
    reward = np.empty((H, B), np.float32)
    terminated = np.zeros((H, B), np.bool_)
    task = np.empty(B, np.int32)
    demo = np.zeros(B, np.bool_)
    image: Floats | None = None
    low = 0
    for group in response.groups:
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
        env_steps=response.env_steps,
        env_steps_taken=response.env_steps_taken,
        acting_weights_version=response.acting_weights_version,
        blocked_seconds=response.blocked_seconds,
    )
