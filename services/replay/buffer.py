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
        self._lacking = set(self.dims)
        self._reported_env_steps = 0
        self._acting_version = 0
        self._pools: dict[int, tuple[Any, Pool, Pool]] = {}

    @property
    def limiter(self) -> Limiter:
        """As configured now."""
        return Limiter.of(self.config.limiter)

    @property
    def env_steps_taken(self) -> int:
        """Steps as the limiter counts them; what is stored was taken, whatever the collector has reported."""
        return max(self.space.meta.env_steps, self._reported_env_steps)

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
            if limited and request.online_update >= self.space.meta.updates:
                self.space.meta.updates = request.online_update + 1
                self.room.wake()
            blocked = self.room.wait(replay_pb2.LIMITER_SIDE_SAMPLE, lambda: self._sample_obstacle(request), caller)
            if self._sample_obstacle(request) is not None:
                return None
            start = time.perf_counter()
            groups = gather(self._draw(request), request.horizon, bool(self.config.image_dim))
            env_steps, taken, acting_version = self.space.meta.env_steps, self.env_steps_taken, self._acting_version
        response = replay_pb2.SampleResponse(
            groups=[group.encode() for group in groups],
            blocked_seconds=blocked,
            blocked_side=replay_pb2.LIMITER_SIDE_SAMPLE if blocked else replay_pb2.LIMITER_SIDE_UNSPECIFIED,
            env_steps=env_steps,
            env_steps_taken=taken,
            acting_weights_version=acting_version,
        )
        if limited:
            response.online_update = request.online_update
        metrics.SAMPLE_SECONDS.observe(time.perf_counter() - start)
        demos = sum(group.demo_count for group in groups)
        metrics.SAMPLED.labels("demos").inc(demos)
        metrics.SAMPLED.labels("online").inc(request.batch_size - demos)
        return response

    def await_insert(self, request: replay_pb2.AwaitInsertRequest, caller: Caller) -> replay_pb2.AwaitInsertResponse:
        """Takes the collector's report, and waits until it may go on, or until the deadline.

        Args:
            request: Checked.
            caller: Call that asks.
        """
        with self._lock:
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
                        held_episodes=len(mirror.rings[task]) if task in mirror.rings else 0,
                    )
                    for task in self.dims
                ],
            )

    def _draw(self, request: replay_pb2.SampleRequest) -> list[tuple[Pool, Draws]]:
        rng = np.random.default_rng(request.seed)
        return [(pool, pool.draw(rng, request.sampler, count)) for pool, count in self._parts(request)]

    def _parts(self, request: replay_pb2.SampleRequest) -> list[tuple[Pool, int]]:
        """Pools and sizes of the demo and the online part of a batch.

        In a mixed batch, a part that has nothing to draw from leaves its share to the other.
        """
        demos, online = self._pools_at(request.horizon)
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
        for task, ring in mirror.rings.items():
            windows = ring.windows(horizon)
            if len(windows) and self.dims.get(task, ())[1:] == (ring.obs_dim, ring.action_dim):
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
        self._raise_if_closed()
        if request.HasField("online_update"):
            env_steps, update = self.env_steps_taken, request.online_update
            if not self.limiter.may_sample(update, env_steps):
                quota = self.limiter.quota(env_steps)
                return Obstacle(
                    f"the trainer waits for the collector: update {update} needs more than {update} allowed updates, "
                    f"{env_steps} environment steps allow {max(0.0, quota):.1f}"
                )
            lacking = self._tasks_without_episodes()
            if lacking and env_steps < self.limiter.all_tasks_until_env_steps:
                return Obstacle(
                    f"the trainer waits for first episodes of {len(lacking)} tasks, such as {min(lacking)}; it begins "
                    f"without them after {self.limiter.all_tasks_until_env_steps} environment steps",
                    starved=True,
                )
        if any(count and not len(pool) for pool, count in self._parts(request)):
            return Obstacle(
                f"the trainer waits for episodes of at least {request.horizon + 1} rows: demo_fraction "
                f"{request.demo_fraction:g} of {self.demos.rows} demo rows and {self.space.mirror.rows} online rows",
                starved=True,
            )
        return None

    def _tasks_without_episodes(self) -> set[str]:
        """Tasks that have never had an episode to draw from since this object is there."""
        rings = self.space.mirror.rings
        if self._lacking:
            self._lacking = {task for task in self._lacking if task not in rings and not self.demos.episodes(task)}
        return self._lacking

    def _insert_obstacle(self) -> Obstacle | None:
        self._raise_if_closed()
        updates, taken, limiter = self.space.meta.updates, self.env_steps_taken, self.limiter
        # A trainer that finds nothing long enough to sample needs the collector, however far that one leads.
        if limiter.may_insert(updates, taken) or self.room.starving:
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
