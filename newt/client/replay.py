"""Client of the replay service: episodes in, training batches out."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from newt.errors import UnavailableError
from newt.wire.channels import connect
from newt.wire.status import from_rpc_error
from newt.wire.tensors import decode, encode
from newt.wire.v1 import replay_pb2, replay_pb2_grpc

OBS_DIM = 128
ACTION_DIM = 16

_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
# No call is without a deadline: a stream this old is replaced by a new one.
_STREAM_SECONDS = 3600.0

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode with valid dimensions (not padded); action and reward t lead from o_t to o_{t+1}.

    Attributes:
        episode_id: Unique within its buffer or demo set; the same id again is a duplicate.
        task: Registry name.
        obs: float32[T+1, O].
        action: float32[T, A].
        reward: float32[T].
        terminated: The last transition ended the task itself.
        success: At the last step; NaN where undefined.
        score: At the last step, in [0, 1]; the one that reports use (Step.corrected_score).
        behaviour: Who chose the actions.
        weights_versions: Lowest and highest version that acted; 0 for none.
        seed: Reproduces the episode in the simulator.
        image: float32[T+1, X] features, or None.
        image_encoder: Identity of what made them; empty if unknown.
    """

    episode_id: str
    task: str
    obs: Floats
    action: Floats
    reward: Floats
    terminated: bool = False
    success: float = float("nan")
    score: float = 0.0
    behaviour: replay_pb2.Behaviour.ValueType = replay_pb2.BEHAVIOUR_UNSPECIFIED
    weights_versions: tuple[int, int] = (0, 0)
    seed: int = 0
    image: Floats | None = None
    image_encoder: str = ""

    def to_proto(self) -> replay_pb2.Episode:
        """The wire's form."""
        message = replay_pb2.Episode(
            episode_id=self.episode_id,
            task=self.task,
            obs=encode(self.obs),
            action=encode(self.action),
            reward=encode(self.reward),
            terminated=self.terminated,
            success=self.success,
            score=self.score,
            behaviour=self.behaviour,
            min_weights_version=self.weights_versions[0],
            max_weights_version=self.weights_versions[1],
            seed=self.seed,
            image_encoder=self.image_encoder,
        )
        if self.image is not None:
            message.image.CopyFrom(encode(self.image))
        return message

    @staticmethod
    def from_proto(message: replay_pb2.Episode) -> Episode:
        """From the wire; the arrays are read-only views of the message."""
        image = None
        if message.HasField("image"):
            image = decode(message.image, "image", dtype="f4", shape=[None, None])
        return Episode(
            episode_id=message.episode_id,
            task=message.task,
            obs=decode(message.obs, "obs", dtype="f4", shape=[None, None]),
            action=decode(message.action, "action", dtype="f4", shape=[None, None]),
            reward=decode(message.reward, "reward", dtype="f4", shape=[None]),
            terminated=message.terminated,
            success=message.success,
            score=message.score,
            behaviour=message.behaviour,
            weights_versions=(message.min_weights_version, message.max_weights_version),
            seed=message.seed,
            image=image,
            image_encoder=message.image_encoder,
        )


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
    blocked_seconds: float


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


class Batches:
    """Iterator over training batches; made by ReplayClient.batches, used as a context manager.

    A thread keeps requests in flight, reads replies and decodes them, so that `next` finds a batch ready. Requests
    and ready batches together never exceed `in_flight`. When the service goes away, the thread connects again and
    asks for the first batch that it has not got.
    """

    def __init__(
        self,
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
        self._stub, self._template = stub, template
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
            away_since: float | None = None
            while not self._closed and self._fetched != self._stop_index:
                before = self._fetched
                problem = self._stream()
                if self._fetched > before:
                    away_since = None
                if problem is not None:
                    now = time.monotonic()
                    away_since = away_since or now
                    if now - away_since > self._patience_s:
                        raise problem
                    with self._changed:
                        self._changed.wait_for(lambda: self._closed, _PAUSE_S)
            self._ready.put(StopIteration())
        except Exception as error:
            self._ready.put(error)

    def _stream(self) -> UnavailableError | None:
        """Reads batches from one stream until all are read, or it ends; returns why if that is worth a pause."""
        ended = threading.Event()
        with self._changed:
            if self._closed:
                return None
            self._call = self._stub.Sample(self._requests(self._fetched, ended), timeout=_STREAM_SECONDS)
        try:
            for response in self._call:
                self._ready.put(_decode(response, self._template, self._fetched))
                self._fetched += 1
        except grpc.RpcError as error:
            if self._call.code() is grpc.StatusCode.CANCELLED:  # By close(), or because the channel was closed.
                self._closed = True
            if self._closed or self._call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return None
            translated = from_rpc_error(error)
            if isinstance(translated, UnavailableError):
                return translated
            raise translated from error
        finally:
            ended.set()
            with self._changed:
                self._changed.notify_all()
        return None

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
    obs = np.zeros((H + 1, B, OBS_DIM), np.float32)
    action = np.zeros((H, B, ACTION_DIM), np.float32)
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
        blocked_seconds=response.blocked_seconds,
    )
