"""One run's buffer: batches out of demos and online episodes, and the ratio between the run's two sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from newt.errors import NewtError
from newt.wire.v1 import replay_pb2
from services.replay import metrics
from services.replay.batch import gather
from services.replay.demos import DemoPool
from services.replay.limiter import Limiter
from services.replay.sampler import Draws, Pool, Source
from services.replay.space import Space
from services.replay.waiting import Caller, Obstacle, WaitingRoom

# Longer than clients of several shards take to ask again while they find nothing to sample on any.
STARVED_SECONDS = 3.0


class Buffer:
    """A run's online episodes, its demos, its limiter and the calls that wait for them.

    Args:
        config: Checked.
        space: The online episodes.
        demo_spaces: Those that config names.
        lock: Guards all mirrors.
    """

    def __init__(
        self,
        config: replay_pb2.CreateBufferRequest,
        space: Space,
        demo_spaces: Sequence[Space],
        lock: threading.RLock,
    ) -> None:
        self.config, self.space = config, space
        self.dims = {dims.task: (i, dims.obs_dim, dims.action_dim) for i, dims in enumerate(config.tasks)}
        self.demos = DemoPool(demo_spaces, self.dims, config.image_dim, config.image_encoder)
        self.room = WaitingRoom(config.buffer_id, lock)
        self._lock = lock
        self._closed: Exception | None = None
        self._lacking = {task for task, (i, _, _) in self.dims.items() if self.has_place_for(i)}
        self._reported_env_steps = 0
        self._env_steps_elsewhere = 0
        self._starved_until = 0.0
        self._acting_version = 0
        self._pools: dict[int, tuple[Any, Pool, Pool]] = {}

    @property
    def limiter(self) -> Limiter:
        """As configured now."""
        return Limiter.of(self.config.limiter)

    @property
    def env_steps_taken(self) -> int:
        """Steps as the limiter counts them; what is stored was taken, whatever the collector has reported."""
        return max(self.space.meta.env_steps + self._env_steps_elsewhere, self._reported_env_steps)

    def has_place_for(self, task_index: int) -> bool:
        """Whether episodes of a task are kept here, and not on another shard."""
        placement = self.config.placement
        return not placement.task_shards or placement.task_shards[task_index] == placement.shard

    def close(self, reason: NewtError) -> None:
        """Ends every waiting call with an error."""
        with self._lock:
            self._closed = reason
            self.room.wake()

    def sample(self, request: replay_pb2.SampleRequest, caller: Caller) -> replay_pb2.SampleResponse | None:
        """One batch; waits for the limiter and for something to sample.

        Args:
            request: Checked.
            caller: Call that asks.

        Returns:
            The batch; None if the caller has gone or its deadline has passed.
        """
        limited = request.HasField("online_update")
        with self._lock:
            self._note(request)
            blocked = self.room.wait(replay_pb2.LIMITER_SIDE_SAMPLE, lambda: self._sample_obstacle(request), caller)
            if self._sample_obstacle(request) is not None:
                return None
            start = time.perf_counter()
            sequences = gather(self._draw(request), request.horizon, self.config.image_dim)
            env_steps, taken, acting_version = self.space.meta.env_steps, self.env_steps_taken, self._acting_version
            supply = self._supply(request) if request.HasField("part") else None
        response = replay_pb2.SampleResponse(
            blocked_seconds=blocked,
            blocked_side=replay_pb2.LIMITER_SIDE_SAMPLE if blocked else replay_pb2.LIMITER_SIDE_UNSPECIFIED,
            env_steps=env_steps,
            env_steps_taken=taken,
            acting_weights_version=acting_version,
            supply=supply,
        )
        if request.packed:
            sequences.pack(response.packed)
        else:
            response.groups.extend(sequences.groups())
        if limited:
            response.online_update = request.online_update
        metrics.SAMPLE_SECONDS.observe(time.perf_counter() - start)
        demos = sequences.demo_count
        metrics.SAMPLED.labels("demos").inc(demos)
        metrics.SAMPLED.labels("online").inc(request.batch_size - demos)
        return response

    def await_sample(self, request: replay_pb2.AwaitSampleRequest, caller: Caller) -> replay_pb2.AwaitSampleResponse:
        """Waits until an update may be sampled, or until the deadline, and tells what there is to draw from.

        Args:
            request: Checked.
            caller: Call that asks.
        """
        with self._lock:
            self._note(request)
            if request.starved:
                self._starved_until = time.monotonic() + STARVED_SECONDS
                self.room.wake()
            blocked = self.room.wait(replay_pb2.LIMITER_SIDE_SAMPLE, lambda: self._update_obstacle(request), caller)
            return replay_pb2.AwaitSampleResponse(
                granted=self._update_obstacle(request) is None, blocked_seconds=blocked, supply=self._supply(request)
            )

    def await_insert(self, request: replay_pb2.AwaitInsertRequest, caller: Caller) -> replay_pb2.AwaitInsertResponse:
        """Takes the collector's report, and waits until it may go on, or until the deadline.

        Args:
            request: Checked.
            caller: Call that asks.
        """
        with self._lock:
            self._hear_of_others(request.env_steps_elsewhere)
            if request.HasField("env_steps_taken") and request.env_steps_taken != self._reported_env_steps:
                self._reported_env_steps = request.env_steps_taken
                self.room.wake()
            self._acting_version = request.acting_weights_version or self._acting_version
            blocked = self.room.wait(replay_pb2.LIMITER_SIDE_INSERT, self._insert_obstacle, caller)
            limiter, updates, taken = self.limiter, self.space.meta.updates, self.env_steps_taken
            response = replay_pb2.AwaitInsertResponse(
                granted=self._insert_obstacle() is None,
                blocked_seconds=blocked,
                blocked_side=replay_pb2.LIMITER_SIDE_INSERT if blocked else replay_pb2.LIMITER_SIDE_UNSPECIFIED,
                lead_updates=limiter.lead(updates, taken),
            )
            permitted = limiter.permitted(updates)
            if response.granted and permitted is not None:
                # Past the bound while the trainer starves: one step at a time.
                response.permitted_env_steps = max(permitted, taken)
            return response

    def describe(self) -> replay_pb2.GetBufferResponse:
        """Counters."""
        with self._lock:
            meta, mirror = self.space.meta, self.space.mirror
            return replay_pb2.GetBufferResponse(
                config=self.config,
                env_steps=meta.env_steps,
                env_steps_taken=self.env_steps_taken,
                episodes=mirror.next,
                rows=mirror.rows,
                demo_rows=self.demos.rows,
                size_bytes=mirror.size_bytes,
                updates=meta.updates,
                blocked_side=self.room.side,
                tasks=[
                    replay_pb2.TaskCounters(
                        task=task,
                        env_steps=meta.task_steps.get(task, 0),
                        episodes=meta.task_episodes.get(task, 0),
                        demo_episodes=self.demos.episodes(task),
                        held_episodes=len(mirror.tasks[task]) if task in mirror.tasks else 0,
                    )
                    for task in self.dims
                ],
            )

    def _note(self, request: replay_pb2.SampleRequest | replay_pb2.AwaitSampleRequest) -> None:
        """Takes over what the trainer says of itself."""
        self._hear_of_others(request.env_steps_elsewhere)
        if request.HasField("online_update") and request.online_update >= self.space.meta.updates:
            self.space.meta.updates = request.online_update + 1
            self.room.wake()

    def _hear_of_others(self, env_steps: int) -> None:
        if env_steps > self._env_steps_elsewhere:
            self._env_steps_elsewhere = env_steps
            self.room.wake()

    def _supply(self, request: replay_pb2.SampleRequest | replay_pb2.AwaitSampleRequest) -> replay_pb2.Supply:
        demos, online = self._pools_at(request.horizon)
        taken = self.env_steps_taken
        begun = not self._waits_for_first_episodes()
        return replay_pb2.Supply(
            demos=demos.weight(request.sampler),
            online=online.weight(request.sampler),
            permitted_updates=self.limiter.permitted_updates(taken) if begun else 0,
            env_steps=self.space.meta.env_steps,
            env_steps_taken=taken,
            acting_weights_version=self._acting_version,
        )

    def _draw(self, request: replay_pb2.SampleRequest) -> list[tuple[Pool, Draws]]:
        rng = np.random.default_rng(request.seed)
        return [(pool, pool.draw(rng, request.sampler, count)) for pool, count in self._parts(request)]

    def _parts(self, request: replay_pb2.SampleRequest) -> list[tuple[Pool, int]]:
        """Pools and sizes of the demo and the online part of a batch.

        In a mixed batch, a part that has nothing to draw from leaves its share to the other.
        """
        demos, online = self._pools_at(request.horizon)
        if request.HasField("part"):
            return [(demos, request.part.demos), (online, request.part.online)]
        demo_count = round(request.batch_size * request.demo_fraction)
        if 0 < request.demo_fraction < 1:
            if not len(demos):
                demo_count = 0
            elif not len(online):
                demo_count = request.batch_size
        return [(demos, demo_count), (online, request.batch_size - demo_count)]

    def _pools_at(self, horizon: int) -> tuple[Pool, Pool]:
        """What the demo part and the online part can draw from; kept until something changes."""
        mirror = self.space.mirror
        version = (mirror, mirror.next, mirror.episodes, self.config.capacity_rows, self.demos.version)
        cached = self._pools.get(horizon)
        if cached and cached[0] == version:
            return cached[1], cached[2]
        demos = Pool(sorted(self.demos.sources(horizon), key=_task_index))
        online = []
        for task, held in mirror.tasks.items():
            windows = held.windows(horizon)
            if len(windows) and self.dims.get(task, ())[1:] == (held.obs_dim, held.action_dim):
                online.append(Source(self.dims[task][0], windows, first=0, demo=False))
        if self.config.demos_in_online:
            # Rows ever written, not rows held: a demo once overwritten never comes back.
            rows_written = self.space.meta.env_steps + mirror.next
            room = max(0, self.config.capacity_rows - rows_written)
            online = self.demos.sources(horizon, max_rows=room) + online
        pools = (demos, Pool(sorted(online, key=_task_index)))
        self._pools[horizon] = (version, *pools)
        return pools

    def _sample_obstacle(self, request: replay_pb2.SampleRequest) -> Obstacle | None:
        obstacle = self._update_obstacle(request)
        if obstacle is not None:
            return obstacle
        if any(count and not len(pool) for pool, count in self._parts(request)):
            return Obstacle(
                f"the trainer waits for episodes of at least {request.horizon + 1} rows: demo_fraction "
                f"{request.demo_fraction:g} of {self.demos.rows} demo rows and {self.space.mirror.rows} online rows",
                starved=True,
            )
        return None

    def _update_obstacle(self, request: replay_pb2.SampleRequest | replay_pb2.AwaitSampleRequest) -> Obstacle | None:
        """Why an online update may not be sampled yet."""
        self._raise_if_closed()
        if not request.HasField("online_update"):
            return None
        env_steps, update = self.env_steps_taken, request.online_update
        if not self.limiter.may_sample(update, env_steps):
            quota = self.limiter.quota(env_steps)
            return Obstacle(
                f"the trainer waits for the collector: update {update} needs more than {update} allowed updates, "
                f"{env_steps} environment steps allow {max(0.0, quota):.1f}"
            )
        if self._waits_for_first_episodes():
            lacking = self._tasks_without_episodes()
            return Obstacle(
                f"the trainer waits for first episodes of {len(lacking)} tasks, such as {min(lacking)}; it begins "
                f"without them after {self.limiter.all_tasks_until_env_steps} environment steps",
                starved=True,
            )
        return None

    def _waits_for_first_episodes(self) -> bool:
        return self.env_steps_taken < self.limiter.all_tasks_until_env_steps and bool(self._tasks_without_episodes())

    def _tasks_without_episodes(self) -> set[str]:
        """Tasks that have never had an episode to draw from since this object is there."""
        held = self.space.mirror.tasks
        if self._lacking:
            self._lacking = {task for task in self._lacking if task not in held and not self.demos.episodes(task)}
        return self._lacking

    def _insert_obstacle(self) -> Obstacle | None:
        self._raise_if_closed()
        updates, taken, limiter = self.space.meta.updates, self.env_steps_taken, self.limiter
        # A trainer that finds nothing long enough to sample needs the collector, however far that one leads.
        starving = self.room.starving or time.monotonic() < self._starved_until
        if limiter.may_insert(updates, taken) or starving:
            return None
        return Obstacle(
            f"the collector waits for the trainer: it leads by {limiter.lead(updates, taken):.1f} "
            f"updates, max_lead_updates is {limiter.max_lead_updates}"
        )

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise self._closed


def _task_index(source: Source) -> int:
    return source.task_index
