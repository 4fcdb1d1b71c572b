"""Training batches that a thread reads ahead: what is asked for, and what holds for one service as for several."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Required, Self, TypedDict

import numpy as np
import numpy.typing as npt

from newt.client.packed import PackedRows
from newt.errors import InvalidInputError
from newt.wire.episodes import Floats
from newt.wire.limits import MAX_COUNT, MAX_HORIZON
from newt.wire.numbers import MAX_UINT32, whole
from newt.wire.retry import until_available
from newt.wire.v1 import replay_pb2

Sampler = Literal["episode_uniform", "transition_uniform", "task_balanced"]

SAMPLERS: dict[Sampler, replay_pb2.Sampler.ValueType] = {
    "episode_uniform": replay_pb2.SAMPLER_EPISODE_UNIFORM,
    "transition_uniform": replay_pb2.SAMPLER_TRANSITION_UNIFORM,
    "task_balanced": replay_pb2.SAMPLER_TASK_BALANCED,
}


class BatchOptions(TypedDict, total=False):
    """Options of `batches`, as `BatchOrder.of` describes them."""

    batch_size: Required[int]
    horizon: Required[int]
    seed: Required[int]
    demo_fraction: float
    sampler: Sampler
    limited: bool
    first_index: int
    count: int | None
    in_flight: int
    patience_s: float


@dataclass(frozen=True)
class BatchOrder:
    """Batches asked for; see `ReplayClient.batches`.

    Attributes:
        template: Request of every batch, but for what depends on its index.
        seed: Seed of all batches.
        limited: Whether the limiter counts them.
        first_index: Index of the first one.
        stop_index: Index behind the last one; None for no end.
        in_flight: Batches requested or ready ahead of the caller.
        patience_s: How long a service may be away.
    """

    template: replay_pb2.SampleRequest
    seed: int
    limited: bool
    first_index: int
    stop_index: int | None
    in_flight: int
    patience_s: float

    @staticmethod
    def of(
        buffer_id: str,
        *,
        batch_size: int,
        horizon: int,
        seed: int,
        demo_fraction: float = 0.5,
        sampler: Sampler = "episode_uniform",
        limited: bool = True,
        first_index: int = 0,
        count: int | None = None,
        in_flight: int = 4,
        patience_s: float = 60.0,
    ) -> BatchOrder:
        """From the options of `batches`.

        Args:
            buffer_id: The buffer.
            batch_size: B.
            horizon: H, 1 to 64.
            seed: Seed of all batches.
            demo_fraction: Share of sequences from demos.
            sampler: How sequences are drawn.
            limited: Count the batches as online updates, which the limiter holds back; False in pretraining.
            first_index: Index of the first batch (for limited ones, of the online update).
            count: Number of batches; None for no end.
            in_flight: Batches requested or ready ahead of the caller; the limiter counts them as asked for.
            patience_s: How long a service may be away before the iterator gives up, seconds.

        Raises:
            InvalidInputError: An option that no service would take.
        """
        if sampler not in SAMPLERS:
            raise InvalidInputError("sampler", f"got {sampler!r}, expected one of {', '.join(SAMPLERS)}")
        if in_flight < 1:
            raise ValueError(f"in_flight: got {in_flight}, expected at least 1")
        template = replay_pb2.SampleRequest(
            buffer_id=buffer_id,
            batch_size=whole("batch_size", batch_size, 1, MAX_UINT32),
            horizon=whole("horizon", horizon, 1, MAX_HORIZON),
            demo_fraction=demo_fraction,
            sampler=SAMPLERS[sampler],
            packed=True,
        )
        seed = whole("seed", seed, high=2**128 - 1)
        first = whole("first_index", first_index, high=MAX_COUNT)
        stop = None if count is None else first + whole("count", count, high=MAX_COUNT)
        return BatchOrder(template, seed, limited, first, stop, in_flight, patience_s)


@dataclass(frozen=True, eq=False)
class Batch:
    """B sequences of H+1 rows. Sequences of one task are next to each other.

    It is held as it came, without padding; what is padded is made, on the CPU, when it is asked for first.

    Attributes:
        rows: Observations, actions and rewards without padding.
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

    rows: PackedRows
    terminated: npt.NDArray[np.bool_]
    task: npt.NDArray[np.int32]
    demo: npt.NDArray[np.bool_]
    image: Floats | None
    index: int
    env_steps: int
    env_steps_taken: int
    acting_weights_version: int
    blocked_seconds: float

    @cached_property
    def obs(self) -> Floats:
        """Zero-padded, time first: float32[H+1, B, 128]."""
        return self.rows.obs()

    @cached_property
    def action(self) -> Floats:
        """Zero-padded, time first: float32[H, B, 16]."""
        return self.rows.action()

    @cached_property
    def reward(self) -> Floats:
        """Time first: float32[H, B]."""
        return self.rows.reward()


class ReadAhead:
    """Iterator over training batches, used as a context manager.

    A thread keeps requests in flight, reads replies and decodes them, so that `next` finds a batch ready. Requests
    and ready batches together never exceed `in_flight`. When a service goes away, the thread connects again and
    asks for the first batch that it has not got. Subclasses say how in `_stream`.

    Attributes:
        left_out: Who is away and not waited for; None if nobody.
    """

    def __init__(self, order: BatchOrder) -> None:
        self.left_out: str | None = None
        self._order = order
        self._fetched = order.first_index  # Index of the next batch from the service ...
        self._taken = order.first_index  # ... and of the next one for the caller.
        self._ready: queue.SimpleQueue[Batch | BaseException] = queue.SimpleQueue()
        self._changed = threading.Condition()  # Guards _taken, _closed, _calls and each stream's end.
        self._closed = False
        self._calls: list[Any] = []  # To be cancelled at the end.
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
            for call in self._calls:
                call.cancel()
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
            while not self._closed and self._fetched != self._order.stop_index:
                until_available(self._stream, time.monotonic() + self._order.patience_s, sleep=self._pause)
            self._ready.put(StopIteration())
        except Exception as error:
            self._ready.put(error)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)

    def _stream(self) -> None:
        """Reads batches until all are read, or a stream ends; raises why if it has brought none."""
        raise NotImplementedError

    def _has_room(self, index: int) -> bool:
        """Whether the batch of an index may be asked for; call with `_changed` held."""
        return index != self._order.stop_index and index < self._taken + self._order.in_flight

    def _deliver(self, batch: Batch) -> None:
        self._ready.put(batch)
        self._fetched += 1


def batch_seed(seed: int, index: int) -> int:
    """Seed in [0, 2**64) of one batch; different for different (seed, index)."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)[0])
