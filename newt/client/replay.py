"""Client of the replay service: episodes in, training batches out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from newt.client.batches import Batches
from newt.client.episodes import Episode
from newt.errors import UnavailableError
from newt.wire.channels import connect
from newt.wire.status import from_rpc_error
from newt.wire.v1 import replay_pb2, replay_pb2_grpc

_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0


class ReplayClient:
    """Speaks to one replay service; safe to share between threads.

        with ReplayClient("127.0.0.1:50061") as replay:
            replay.append(episode, buffer_id="run-1", timeout_s=60)
            with replay.batches("run-1", batch_size=256, horizon=3, seed=1) as batches:
                batch = next(batches)

    Args:
        target: `host:port`, or any gRPC target.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = connect(target)
        self._stub = replay_pb2_grpc.ReplayServiceStub(self._channel)

    def create_buffer(
        self,
        buffer_id: str,
        tasks: Mapping[str, tuple[int, int]],
        *,
        capacity_rows: int,
        updates_per_env_step: float,
        start_env_steps: int,
        max_lead_updates: int,
        demo_sets: Sequence[str] = (),
        demos_in_online: bool = True,
        image_dim: int = 0,
        image_encoder: str = "",
        timeout_s: float = 60.0,
    ) -> bool:
        """Makes a run's buffer, or changes its capacity and limiter; see the proto for the arguments.

        Args:
            buffer_id: The run's id.
            tasks: Valid (obs_dim, action_dim) by task; the order gives the task indices.
            capacity_rows: Rows kept.
            updates_per_env_step: Ratio that the limiter holds.
            start_env_steps: Transitions stored before updates begin.
            max_lead_updates: Updates that the collector may be ahead; 0 for no bound.
            demo_sets: Where to take demos from.
            demos_in_online: Draw the online part from demos too until online data has replaced them.
            image_dim: Image feature columns; 0 for state-only.
            image_encoder: Identity of what makes the features; demos and episodes of another one are refused.
            timeout_s: Deadline, waiting for the service included.

        Returns:
            Whether it existed.
        """
        request = replay_pb2.CreateBufferRequest(
            buffer_id=buffer_id,
            tasks=[replay_pb2.TaskDims(task=task, obs_dim=o, action_dim=a) for task, (o, a) in tasks.items()],
            capacity_rows=capacity_rows,
            limiter=replay_pb2.Limiter(
                updates_per_env_step=updates_per_env_step,
                start_env_steps=start_env_steps,
                max_lead_updates=max_lead_updates,
            ),
            demo_sets=demo_sets,
            demos_in_online=demos_in_online,
            image_dim=image_dim,
            image_encoder=image_encoder,
        )
        response: replay_pb2.CreateBufferResponse = self._call(self._stub.CreateBuffer, request, timeout_s)
        return response.existed

    def delete_buffer(self, buffer_id: str, timeout_s: float = 60.0) -> int:
        """Removes a buffer and its episodes; returns how many. Unknown buffers are no error."""
        request = replay_pb2.DeleteBufferRequest(buffer_id=buffer_id)
        response: replay_pb2.DeleteBufferResponse = self._call(self._stub.DeleteBuffer, request, timeout_s)
        return response.episodes

    def append(
        self, episode: Episode, *, buffer_id: str = "", demo_set: str = "", timeout_s: float
    ) -> replay_pb2.AppendResponse:
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
        response: replay_pb2.AppendResponse = self._call(self._stub.Append, request, timeout_s)
        return response

    def await_insert(self, buffer_id: str, timeout_s: float) -> replay_pb2.AwaitInsertResponse:
        """Waits until the collector may go on; `granted` is False if it still may not shortly before the deadline."""
        request = replay_pb2.AwaitInsertRequest(buffer_id=buffer_id)
        response: replay_pb2.AwaitInsertResponse = self._call(self._stub.AwaitInsert, request, timeout_s)
        return response

    def get_buffer(self, buffer_id: str, timeout_s: float = 10.0) -> replay_pb2.GetBufferResponse:
        """Counters of a buffer."""
        request = replay_pb2.GetBufferRequest(buffer_id=buffer_id)
        response: replay_pb2.GetBufferResponse = self._call(self._stub.GetBuffer, request, timeout_s)
        return response

    def list_demo_sets(self, name: str = "", timeout_s: float = 10.0) -> list[replay_pb2.DemoSet]:
        """All demo sets, or the one of that name."""
        request = replay_pb2.ListDemoSetsRequest(demo_set=name)
        response: replay_pb2.ListDemoSetsResponse = self._call(self._stub.ListDemoSets, request, timeout_s)
        return list(response.demo_sets)

    def delete_demo_set(self, name: str, timeout_s: float = 60.0) -> int:
        """Removes a demo set that no buffer uses; returns the number of its episodes."""
        request = replay_pb2.DeleteDemoSetRequest(demo_set=name)
        response: replay_pb2.DeleteDemoSetResponse = self._call(self._stub.DeleteDemoSet, request, timeout_s)
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
        try:
            for response in self._stub.ReadEpisodes(request, timeout=timeout_s, wait_for_ready=True):
                yield Episode.from_proto(response.episode)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def batches(
        self,
        buffer_id: str,
        *,
        batch_size: int,
        horizon: int,
        seed: int,
        demo_fraction: float = 0.5,
        sampler: replay_pb2.Sampler.ValueType = replay_pb2.SAMPLER_EPISODE_UNIFORM,
        limited: bool = True,
        first_index: int = 0,
        count: int | None = None,
        in_flight: int = 4,
        patience_s: float = 60.0,
    ) -> Batches:
        """Training batches, fetched ahead in the background.

        The seed of batch i depends on `seed` and i only, so an iterator that starts at `first_index` continues
        where another one stopped.

        Args:
            buffer_id: The buffer.
            batch_size: B.
            horizon: H, 1 to 64.
            seed: Of all batches.
            demo_fraction: Share of sequences from demos.
            sampler: How sequences are drawn.
            limited: Count the batches as online updates, which the limiter holds back; False in pretraining.
            first_index: Index of the first batch (for limited ones, of the online update).
            count: Number of batches; None for no end.
            in_flight: Batches requested or ready ahead of the caller; the limiter counts them as asked for.
            patience_s: How long the service may be away before the iterator gives up.
        """
        request = replay_pb2.SampleRequest(
            buffer_id=buffer_id, batch_size=batch_size, horizon=horizon, demo_fraction=demo_fraction, sampler=sampler
        )
        return Batches(self._stub, request, seed, limited, first_index, count, in_flight, patience_s)

    def close(self) -> None:
        """Closes the channel; open iterators end."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        """One unary call, repeated while the service is away; every method of replay is harmless to repeat."""
        deadline = time.monotonic() + timeout_s
        pause = _PAUSE_S
        said = "nobody answers there"
        while True:
            try:
                return method(request, timeout=max(0.0, deadline - time.monotonic()), wait_for_ready=True)
            except grpc.RpcError as error:
                translated = from_rpc_error(error)
                code = getattr(error, "code", lambda: None)()
                if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise UnavailableError(
                        f"replay at {self._target} did not do it within {timeout_s:g} s: {said}"
                    ) from error
                if not isinstance(translated, UnavailableError) or time.monotonic() + pause >= deadline:
                    raise translated from error
                said = str(translated)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
