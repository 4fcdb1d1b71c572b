"""Several replay services as one: the tasks of every buffer and demo set are spread over them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack

from newt.client.buffers import Appended, BufferConfig, BufferInfo, HeldDemoSet, InsertPermit, Placement
from newt.client.merging import merged_buffer, merged_demo_sets
from newt.client.placement import capacities, home
from newt.client.read_ahead import BatchOptions, BatchOrder
from newt.client.replay import ReplayClient
from newt.client.shard_batches import ShardBatches
from newt.errors import NotFoundError, PreconditionError, UnavailableError
from newt.wire.addresses import split_addresses
from newt.wire.episodes import Episode
from newt.wire.peer import REMEDY, Patience

T = TypeVar("T")

Away = Literal["wait", "leave_out"]
"""What happens to training while a shard is away: it waits, or goes on without the shard's tasks."""


@dataclass(frozen=True)
class _Spread:
    """A buffer as its shards hold it: where its tasks are, and the transitions that each has stored, last we heard."""

    task_shards: dict[str, int]
    env_steps: list[int]


class ReplayShards:
    """Speaks to several replay services, in the same way as ReplayClient to one; safe to share between threads.

        with ReplayShards(["lab1:50061", "lab2:50061", "lab3:50061"]) as replay:
            replay.append(episode, buffer_id="run-1", timeout_s=60)

    A buffer's tasks are spread when it is created, and stay where they are when addresses are added behind the others:
    only what is created then is spread over all. A shard is known by its place in the list. Nothing that a shard holds
    is read from another one, so the services need not know of each other.

    Args:
        targets: `host:port`, or any gRPC target, of each.
        remedy: What to do when one is away.
        patience: Waits for a service longer than a call may take.
        away: Whether batches wait for a shard that is away, or leave its tasks out until it is back.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        remedy: str = REMEDY,
        patience: Patience | None = None,
        away: Away = "wait",
    ) -> None:
        self._shards = [ReplayClient(target, remedy=remedy, patience=patience) for target in targets]
        self._away = away
        self._pool = ThreadPoolExecutor(4 * len(targets), thread_name_prefix="replay-shard")
        self._inserting = ThreadPoolExecutor(len(targets), thread_name_prefix="replay-insert")
        self._lock = threading.Lock()  # Guards the tables below.
        self._buffers: dict[str, _Spread] = {}
        self._demo_shards: dict[str, int] = {}
        self._inserts: dict[tuple[str, int], Future[InsertPermit]] = {}
        self._insert_turn = threading.Lock()

    def create_buffer(self, buffer_id: str, config: BufferConfig, timeout_s: float = 60.0) -> bool:
        """As ReplayClient.create_buffer, on each shard with its share of the capacity.

        A task goes where its demonstrations are, those without to the shard that `placement.home` says.

        Raises:
            PreconditionError: It exists with other contents, or demonstrations of a task are on two shards.
        """
        deadline = time.monotonic() + timeout_s
        try:
            placement = self._placement(buffer_id, timeout_s)
        except NotFoundError:
            placement = self._place(config, timeout_s)
        rows = capacities(config.capacity_rows, placement.task_shards, placement.shards)
        # The first shard comes last: a buffer is there once that has it, and whoever dies before begins again.
        existed = False
        for number in reversed(range(placement.shards)):
            part = config
            if placement.shards > 1:
                part = replace(config, capacity_rows=rows[number], placement=replace(placement, shard=number))
            left_s = max(0.0, deadline - time.monotonic())
            existed = self._create_part(number, buffer_id, part, left_s)
        return existed

    def delete_buffer(self, buffer_id: str, timeout_s: float = 60.0) -> int:
        """As ReplayClient.delete_buffer; to be repeated if a shard is away."""
        with self._lock:
            self._buffers.pop(buffer_id, None)
        # The first shard comes last, as it says where the others' parts are.
        return sum(shard.delete_buffer(buffer_id, timeout_s) for shard in reversed(self._shards))

    def append(self, episode: Episode, *, buffer_id: str = "", demo_set: str = "", timeout_s: float = 10.0) -> Appended:
        """As ReplayClient.append, on the shard of the episode's task; `env_steps` is the sum over all of a buffer's."""
        if bool(buffer_id) == bool(demo_set):
            raise ValueError("give either buffer_id or demo_set")
        if demo_set:
            number = self._demo_shard(episode.task, timeout_s)
            return self._shards[number].append(episode, demo_set=demo_set, timeout_s=timeout_s)
        spread = self._spread(buffer_id, timeout_s)
        # A task that the buffer lacks: any shard says so.
        number = spread.task_shards.get(episode.task, 0)
        try:
            appended = self._shards[number].append(episode, buffer_id=buffer_id, timeout_s=timeout_s)
        except (PreconditionError, NotFoundError):
            self._forget(buffer_id)  # Deleted, perhaps made again with its tasks elsewhere.
            spread = self._spread(buffer_id, timeout_s)
            if spread.task_shards.get(episode.task, 0) == number:
                raise
            return self.append(episode, buffer_id=buffer_id, timeout_s=timeout_s)
        with self._lock:
            spread.env_steps[number] = max(spread.env_steps[number], appended.env_steps)
            return replace(appended, env_steps=sum(spread.env_steps))

    def await_insert(
        self,
        buffer_id: str,
        timeout_s: float,
        *,
        env_steps_taken: int | None = None,
        acting_weights_version: int = 0,
    ) -> InsertPermit:
        """As ReplayClient.await_insert. Every shard is told; the collector may go on as soon as one of them grants it.

        All go by the same counts, but a shard that was away knows fewer updates until it hears of the next one, and one
        that lacks episodes lets the collector go on where the others would hold it.
        """
        spread, deadline = self._spread(buffer_id, timeout_s), time.monotonic() + timeout_s
        total = sum(spread.env_steps)
        with self._insert_turn:
            for number, stored in enumerate(spread.env_steps):
                # One call at a time: a shard that still waits with the last one knows enough to hold us back.
                last = self._inserts.get((buffer_id, number))
                if last is None or last.done():
                    self._inserts[buffer_id, number] = self._inserting.submit(
                        self._shards[number].await_insert,
                        buffer_id,
                        timeout_s,
                        env_steps_taken=env_steps_taken,
                        acting_weights_version=acting_weights_version,
                        env_steps_elsewhere=total - stored,
                    )
            refused: InsertPermit | None = None
            while True:
                calls = {key: call for key, call in self._inserts.items() if key[0] == buffer_id}
                # Who was refused may ask again; who has heard nothing at all waits.
                left_s = max(0.0, deadline - time.monotonic()) if refused else None
                done, waiting = wait(calls.values(), timeout=left_s, return_when=FIRST_COMPLETED)
                self._inserts = {key: call for key, call in self._inserts.items() if call not in done}
                permits = self._permits(buffer_id, done, others=bool(waiting or refused))
                granted = [permit for permit in permits if permit.granted]
                if granted:
                    return _widest(granted)
                refused = permits[-1] if permits else refused
                if refused and (not waiting or time.monotonic() >= deadline):
                    return refused

    def _permits(self, buffer_id: str, done: Collection[Future[InsertPermit]], *, others: bool) -> list[InsertPermit]:
        """What shards have answered; raises why if one cannot, and no other one may."""
        errors = [error for call in done if (error := call.exception()) is not None]
        permits = [call.result() for call in done if call.exception() is None]
        for error in errors:
            if isinstance(error, NotFoundError | PreconditionError):
                self._forget(buffer_id)
            if not isinstance(error, UnavailableError) or not (permits or others):
                raise error
        return permits

    def get_buffer(self, buffer_id: str, timeout_s: float = 10.0) -> BufferInfo:
        """As ReplayClient.get_buffer, counted over all shards.

        Raises:
            NotFoundError: A shard that should have a part has none.
            PreconditionError: The addresses are others, or in another order, than when the buffer was created.
        """
        placement = self._placement(buffer_id, timeout_s)
        infos = self._on_all(lambda shard: shard.get_buffer(buffer_id, timeout_s), placement.shards)
        for number, info in enumerate(infos):
            _check_place(self._shards[number], number, buffer_id, info.config.placement)
        names = [task.task for task in infos[0].tasks]
        with self._lock:
            self._buffers[buffer_id] = _Spread(
                dict(zip(names, placement.task_shards, strict=True)), [info.env_steps for info in infos]
            )
        return merged_buffer(infos)

    def list_demo_sets(self, name: str = "", timeout_s: float = 10.0) -> list[HeldDemoSet]:
        """As ReplayClient.list_demo_sets; a set's tasks of all shards are listed together."""
        found = [demo_set for held in self._held(name, timeout_s) for demo_set in held]
        if name and not found:
            return self._shards[0].list_demo_sets(name, timeout_s)  # which says that there is none
        return merged_demo_sets(found)

    def delete_demo_set(self, name: str, timeout_s: float = 60.0) -> int:
        """As ReplayClient.delete_demo_set; to be repeated if a shard is away.

        The first shard has every buffer, so it refuses before anything is removed if one uses the set.
        """
        episodes, missing = 0, 0
        for shard in self._shards:
            try:
                episodes += shard.delete_demo_set(name, timeout_s)
            except NotFoundError:
                missing += 1
                if missing == len(self._shards):
                    raise
        return episodes

    def read_episodes(
        self, *, buffer_id: str = "", demo_set: str = "", task: str = "", timeout_s: float = 600.0
    ) -> Iterator[Episode]:
        """As ReplayClient.read_episodes; oldest first within each shard, one shard after the other."""
        missing = 0
        for shard in self._shards:
            try:
                yield from shard.read_episodes(buffer_id=buffer_id, demo_set=demo_set, task=task, timeout_s=timeout_s)
            except NotFoundError:
                missing += 1
                if missing == len(self._shards):
                    raise

    def batches(self, buffer_id: str, **options: Unpack[BatchOptions]) -> ShardBatches:
        """As ReplayClient.batches: every shard draws its part of each batch."""
        order = BatchOrder.of(buffer_id, **options)
        timeout_s = min(order.patience_s, 10.0)

        def shards() -> list[tuple[ReplayClient, int]]:
            spread = self._spread(buffer_id, timeout_s)
            return list(zip(self._shards, spread.env_steps, strict=False))

        return ShardBatches(shards, order, leave_out=self.leaves_out)

    def close(self) -> None:
        """Closes the channels; open iterators end."""
        for shard in self._shards:
            shard.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._inserting.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- where things are

    @property
    def leaves_out(self) -> bool:
        """Whether a shard that is away is left out."""
        return self._away == "leave_out"

    def shard_of(self, buffer_id: str, task: str, timeout_s: float = 10.0) -> int:
        """The shard that holds a task of a buffer."""
        return self._spread(buffer_id, timeout_s).task_shards.get(task, 0)

    def _placement(self, buffer_id: str, timeout_s: float) -> Placement:
        """Where a buffer's tasks are; the first shard knows. Raises NotFoundError, PreconditionError."""
        config = self._shards[0].get_buffer(buffer_id, timeout_s).config
        if config.placement is None:  # Of the time before there were several.
            return Placement(1, 0, (0,) * len(config.tasks))
        _check_place(self._shards[0], 0, buffer_id, config.placement)
        if config.placement.shards > len(self._shards):
            raise PreconditionError(
                f"buffer {buffer_id!r} is spread over {config.placement.shards} replay services, "
                f"{len(self._shards)} are named; name all, in their order"
            )
        return config.placement

    def _place(self, config: BufferConfig, timeout_s: float) -> Placement:
        """Where a new buffer's tasks go."""
        number_of_task: dict[str, int] = {}
        there = set()
        for number, held in enumerate(self._held("", timeout_s)):
            for demo_set in held:
                if demo_set.name not in config.demo_sets:
                    continue
                there.add(demo_set.name)
                for task in demo_set.tasks:
                    if number_of_task.setdefault(task.task, number) != number and task.task in config.tasks:
                        raise PreconditionError(
                            f"demonstrations of {task.task!r} in {', '.join(config.demo_sets)} are on the replay "
                            f"services {number_of_task[task.task]} and {number}; use one of the sets"
                        )
        for name in config.demo_sets:
            if name not in there:
                self._shards[0].list_demo_sets(name, timeout_s)  # says that there is none
        count = len(self._shards)
        return Placement(count, 0, tuple(number_of_task.get(task, home(task, count)) for task in config.tasks))

    def _create_part(self, number: int, buffer_id: str, config: BufferConfig, timeout_s: float) -> bool:
        shard = self._shards[number]
        try:
            return shard.create_buffer(buffer_id, config, timeout_s)
        except PreconditionError:
            info = shard.get_buffer(buffer_id, timeout_s)
            if info.episodes or number == 0:
                raise
            # What a creation left that was cut short, when other demonstrations or fewer shards were there.
            shard.delete_buffer(buffer_id, timeout_s)
            return shard.create_buffer(buffer_id, config, timeout_s)

    def _spread(self, buffer_id: str, timeout_s: float) -> _Spread:
        with self._lock:
            known = self._buffers.get(buffer_id)
        if known is None:
            self.get_buffer(buffer_id, timeout_s)
            known = self._buffers[buffer_id]
        return known

    def _forget(self, buffer_id: str) -> None:
        with self._lock:
            self._buffers.pop(buffer_id, None)

    def _demo_shard(self, task: str, timeout_s: float) -> int:
        """Where demonstrations of a task go: to those that are there."""
        with self._lock:
            known = self._demo_shards.get(task)
        if known is not None:
            return known
        held = self._held("", timeout_s)
        found = {
            one.task: number
            for number, demo_sets in reversed(list(enumerate(held)))
            for demo_set in demo_sets
            for one in demo_set.tasks
        }
        number = found.get(task, home(task, len(self._shards)))
        with self._lock:
            self._demo_shards |= found
            return self._demo_shards.setdefault(task, number)

    def _held(self, name: str, timeout_s: float) -> list[list[HeldDemoSet]]:
        """The demo sets of each shard, or the one of that name."""

        def held(shard: ReplayClient) -> list[HeldDemoSet]:
            try:
                return shard.list_demo_sets(name, timeout_s)
            except NotFoundError:
                return []

        return self._on_all(held)

    def _on_all(self, call: Callable[[ReplayClient], T], count: int | None = None) -> list[T]:
        """Results of a call to the first `count` shards at once; raises the first error."""
        return list(self._pool.map(call, self._shards[:count]))


Replay = ReplayClient | ReplayShards


def replay_client(
    addresses: str, *, remedy: str = REMEDY, patience: Patience | None = None, away: Away = "wait"
) -> Replay:
    """A client of one replay service, or of several.

    Args:
        addresses: `host:port`, or several with commas between them, in the order in which they always were.
        remedy: What to do when one is away.
        patience: Waits for a service longer than a call may take.
        away: See ReplayShards; of no meaning for one.
    """
    targets = split_addresses(addresses, "replay")
    if len(targets) == 1:
        return ReplayClient(targets[0], remedy=remedy, patience=patience)
    return ReplayShards(targets, remedy=remedy, patience=patience, away=away)


def _widest(permits: Sequence[InsertPermit]) -> InsertPermit:
    bounds = [permit.permitted_env_steps for permit in permits if permit.permitted_env_steps is not None]
    return replace(permits[0], permitted_env_steps=max(bounds) if len(bounds) == len(permits) else None)


def _check_place(shard: ReplayClient, number: int, buffer_id: str, placement: Placement | None) -> None:
    if placement is not None and placement.shard != number:
        raise PreconditionError(
            f"the {shard.peer} is shard {placement.shard} of buffer {buffer_id!r}, and named as number {number}; name "
            "the addresses in the order in which they were when the buffer was created, new ones last"
        )
