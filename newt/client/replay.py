"""Client of the replay service: episodes in, training batches out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from newt.client.batches import Batches
from newt.client.buffers import Appended, BufferConfig, BufferInfo, HeldDemoSet, InsertPermit
from newt.client.read_ahead import BatchOptions, BatchOrder
from newt.errors import UnavailableError
from newt.wire.channels import connect
from newt.wire.episodes import Episode
from newt.wire.numbers import whole
from newt.wire.peer import REMEDY, Patience, Peer
from newt.wire.v1 import replay_pb2, replay_pb2_grpc


class ReplayClient:
    """Speaks to one replay service; safe to share between threads.

        with ReplayClient("127.0.0.1:50061") as replay:
            replay.append(episode, buffer_id="run-1", timeout_s=60)
            with replay.batches("run-1", batch_size=256, horizon=3, seed=1) as batches:
                batch = next(batches)

    Args:
        target: `host:port`, or any gRPC target.
        remedy: What to do when it is away.
        patience: Waits for the service longer than a call may take.
    """

    def __init__(self, target: str, *, remedy: str = REMEDY, patience: Patience | None = None) -> None:
        self.peer = Peer("replay", target, remedy=remedy, patience=patience)
        self._channel = connect(target)
        self.stub = replay_pb2_grpc.ReplayServiceStub(self._channel)

    def create_buffer(self, buffer_id: str, config: BufferConfig, timeout_s: float = 60.0) -> bool:
        """Makes a run's buffer, or changes its capacity and limiter.

        Args:
            buffer_id: The run's id.
            config: How it is to be kept.
            timeout_s: Deadline, waiting for the service included.

        Returns:
            Whether it existed.
        """
        response = self.peer.call(self.stub.CreateBuffer, config.to_proto(buffer_id), timeout_s)
        return bool(response.existed)

    def delete_buffer(self, buffer_id: str, timeout_s: float = 60.0) -> int:
        """Removes a buffer and its episodes; returns how many. Unknown buffers are no error."""
        request = replay_pb2.DeleteBufferRequest(buffer_id=buffer_id)
        response: replay_pb2.DeleteBufferResponse = self.peer.call(self.stub.DeleteBuffer, request, timeout_s)
        return response.episodes

    def append(self, episode: Episode, *, buffer_id: str = "", demo_set: str = "", timeout_s: float = 10.0) -> Appended:
        """Stores an episode durably in a buffer or a demo set (give one of the two).

        Repeats the call within the deadline while the service or Redis is away; the episode's id makes that harmless.

        Raises:
            InvalidInputError: The episode is refused; the error names the field.
            NotFoundError: No such buffer.
            ExhaustedError: Redis is full.
            UnavailableError: Still away at the deadline. Keep the episode and try again.
        """
        request = replay_pb2.AppendRequest(episode=episode.to_proto())
        if bool(buffer_id) == bool(demo_set):
            raise ValueError("give either buffer_id or demo_set")
        if buffer_id:
            request.buffer_id = buffer_id
        else:
            request.demo_set = demo_set
        response = self.peer.call(self.stub.Append, request, timeout_s)
        return Appended(
            duplicate=response.duplicate,
            env_steps=response.env_steps,
            task_env_steps=response.task_env_steps,
            task_episodes=response.task_episodes,
            evicted_episodes=response.evicted_episodes,
        )

    def await_insert(
        self,
        buffer_id: str,
        timeout_s: float,
        *,
        env_steps_taken: int | None = None,
        acting_weights_version: int = 0,
        env_steps_elsewhere: int = 0,
    ) -> InsertPermit:
        """Reports what a collector has done, and waits until it may go on.

        Args:
            buffer_id: The buffer.
            timeout_s: Deadline; `granted` is False if the collector still may not go on shortly before it.
            env_steps_taken: Steps of all episodes, unfinished ones included; None: no news.
            acting_weights_version: Newest version of the weights that has acted; 0 for none.
            env_steps_elsewhere: Transitions that other shards of the buffer have stored.
        """
        request = replay_pb2.AwaitInsertRequest(
            buffer_id=buffer_id,
            acting_weights_version=whole("acting_weights_version", acting_weights_version),
            env_steps_elsewhere=whole("env_steps_elsewhere", env_steps_elsewhere),
        )
        if env_steps_taken is not None:
            request.env_steps_taken = whole("env_steps_taken", env_steps_taken)
        return InsertPermit.from_proto(self.peer.call(self.stub.AwaitInsert, request, timeout_s))

    def get_buffer(self, buffer_id: str, timeout_s: float = 10.0) -> BufferInfo:
        """Counters of a buffer."""
        request = replay_pb2.GetBufferRequest(buffer_id=buffer_id)
        return BufferInfo.from_proto(self.peer.call(self.stub.GetBuffer, request, timeout_s))

    def list_demo_sets(self, name: str = "", timeout_s: float = 10.0) -> list[HeldDemoSet]:
        """All demo sets, or the one of that name."""
        request = replay_pb2.ListDemoSetsRequest(demo_set=name)
        response = self.peer.call(self.stub.ListDemoSets, request, timeout_s)
        return [HeldDemoSet.from_proto(demo_set) for demo_set in response.demo_sets]

    def delete_demo_set(self, name: str, timeout_s: float = 60.0) -> int:
        """Removes a demo set that no buffer uses; returns the number of its episodes."""
        request = replay_pb2.DeleteDemoSetRequest(demo_set=name)
        response: replay_pb2.DeleteDemoSetResponse = self.peer.call(self.stub.DeleteDemoSet, request, timeout_s)
        return response.episodes

    def read_episodes(
        self, *, buffer_id: str = "", demo_set: str = "", task: str = "", timeout_s: float = 600.0
    ) -> Iterator[Episode]:
        """Whole episodes of a buffer or a demo set (give one of the two), oldest first."""
        request = replay_pb2.ReadEpisodesRequest(task=task)
        if bool(buffer_id) == bool(demo_set):
            raise ValueError("give either buffer_id or demo_set")
        if buffer_id:
            request.buffer_id = buffer_id
        else:
            request.demo_set = demo_set

        def begin(request: replay_pb2.ReadEpisodesRequest, timeout: float) -> tuple[Any, Any]:
            call = self.stub.ReadEpisodes(request, timeout=timeout)
            return next(call, None), call

        deadline, seen = time.monotonic() + timeout_s, set[str]()
        while True:
            response, rest = self.peer.call(begin, request, timeout_s)
            try:
                while response is not None:
                    if response.episode.episode_id not in seen:
                        seen.add(response.episode.episode_id)
                        yield Episode.from_proto(response.episode)
                    response = next(rest, None)
                return
            except grpc.RpcError as error:  # Goes on behind the last one, if the service was away meanwhile.
                translated = self.peer.error(error, timeout_s)
                if not isinstance(translated, UnavailableError) or time.monotonic() > deadline:
                    raise translated from error

    def batches(self, buffer_id: str, **options: Unpack[BatchOptions]) -> Batches:
        """Training batches, fetched ahead in the background; `BatchOrder.of` has the options.

        The seed of batch i depends on `seed` and i only, so an iterator that starts at `first_index` continues
        where another one stopped.

        Raises:
            InvalidInputError: An option that no service would take.
        """
        return Batches(self.peer, self.stub, BatchOrder.of(buffer_id, **options))

    def close(self) -> None:
        """Closes the channel; open iterators end."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
