"""What replay knows of buffers and demonstration sets, in types of ours."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from newt.wire.numbers import MAX_UINT32, whole
from newt.wire.v1 import replay_pb2


class Side(enum.IntEnum):
    """Whom the limiter holds back."""

    NOBODY = replay_pb2.LIMITER_SIDE_UNSPECIFIED
    SAMPLE = replay_pb2.LIMITER_SIDE_SAMPLE
    """The trainer waits for the collector."""
    INSERT = replay_pb2.LIMITER_SIDE_INSERT
    """The collector waits for the trainer."""


@dataclass(frozen=True)
class Placement:
    """How a buffer is spread over several replay services; `ReplayShards` decides it.

    Attributes:
        shards: Services that have the buffer.
        shard: This one, counted from 0.
        task_shards: The one that holds each of the buffer's tasks, in their order.
    """

    shards: int
    shard: int
    task_shards: tuple[int, ...]

    def to_proto(self) -> replay_pb2.Placement:
        """The wire's form."""
        return replay_pb2.Placement(shards=self.shards, shard=self.shard, task_shards=self.task_shards)

    @staticmethod
    def from_proto(message: replay_pb2.Placement) -> Placement:
        """From the wire."""
        return Placement(message.shards, message.shard, tuple(message.task_shards))


@dataclass(frozen=True)
class BufferConfig:
    """How a run's buffer is kept; see the proto for the limiter's rule.

    Attributes:
        tasks: Valid (obs_dim, action_dim) by task; the order gives the task indices.
        capacity_rows: Rows kept.
        updates_per_env_step: Ratio that the limiter holds.
        start_env_steps: Steps taken before updates begin.
        max_lead_updates: Updates that the collector may be ahead; 0 for no bound.
        all_tasks_until_env_steps: While fewer steps are taken, updates wait until every task has an episode.
        demo_sets: Sets to take demonstrations from.
        demos_in_online: Draw the online part from demonstrations too until online data has replaced them.
        image_dim: Image feature columns; 0 for state-only.
        image_encoder: Identity of what makes the features; those of another one are refused.
        placement: Where its tasks are; None: one service holds all.
    """

    tasks: Mapping[str, tuple[int, int]]
    capacity_rows: int
    updates_per_env_step: float
    start_env_steps: int = 0
    max_lead_updates: int = 0
    all_tasks_until_env_steps: int = 0
    demo_sets: Sequence[str] = ()
    demos_in_online: bool = True
    image_dim: int = 0
    image_encoder: str = ""
    placement: Placement | None = None

    def to_proto(self, buffer_id: str) -> replay_pb2.CreateBufferRequest:
        """The wire's form. Raises InvalidInputError for what that cannot hold."""
        placement = self.placement.to_proto() if self.placement else None
        return replay_pb2.CreateBufferRequest(
            buffer_id=buffer_id,
            tasks=[
                replay_pb2.TaskDims(
                    task=task,
                    obs_dim=whole(f"tasks[{i}].obs_dim", dims[0], 0, MAX_UINT32),
                    action_dim=whole(f"tasks[{i}].action_dim", dims[1], 0, MAX_UINT32),
                )
                for i, (task, dims) in enumerate(self.tasks.items())
            ],
            capacity_rows=whole("capacity_rows", self.capacity_rows),
            limiter=replay_pb2.Limiter(
                updates_per_env_step=self.updates_per_env_step,
                start_env_steps=whole("limiter.start_env_steps", self.start_env_steps),
                max_lead_updates=whole("limiter.max_lead_updates", self.max_lead_updates),
                all_tasks_until_env_steps=whole("limiter.all_tasks_until_env_steps", self.all_tasks_until_env_steps),
            ),
            demo_sets=self.demo_sets,
            demos_in_online=self.demos_in_online,
            image_dim=whole("image_dim", self.image_dim, 0, MAX_UINT32),
            image_encoder=self.image_encoder,
            placement=placement,
        )

    @staticmethod
    def from_proto(message: replay_pb2.CreateBufferRequest) -> BufferConfig:
        """From the wire."""
        return BufferConfig(
            tasks={dims.task: (dims.obs_dim, dims.action_dim) for dims in message.tasks},
            capacity_rows=message.capacity_rows,
            updates_per_env_step=message.limiter.updates_per_env_step,
            start_env_steps=message.limiter.start_env_steps,
            max_lead_updates=message.limiter.max_lead_updates,
            all_tasks_until_env_steps=message.limiter.all_tasks_until_env_steps,
            demo_sets=tuple(message.demo_sets),
            demos_in_online=message.demos_in_online,
            image_dim=message.image_dim,
            image_encoder=message.image_encoder,
            placement=Placement.from_proto(message.placement) if message.HasField("placement") else None,
        )


@dataclass(frozen=True)
class TaskCounters:
    """One task of a buffer: transitions and episodes ever appended, demonstrations to draw from, episodes held."""

    task: str
    env_steps: int
    episodes: int
    demo_episodes: int
    held_episodes: int


@dataclass(frozen=True)
class BufferInfo:
    """A buffer as it is now.

    Attributes:
        config: How it is kept.
        env_steps: Transitions ever appended.
        env_steps_taken: Those, and what the collector has reported of unfinished episodes.
        episodes: Episodes ever appended.
        rows: Rows held.
        demo_rows: Rows of demonstrations that it draws from.
        size_bytes: Memory of the episodes held.
        updates: Highest online update asked for so far plus one.
        blocked_side: Whom the limiter holds back.
        tasks: Tasks by name, in order.
    """

    config: BufferConfig
    env_steps: int
    env_steps_taken: int
    episodes: int
    rows: int
    demo_rows: int
    size_bytes: int
    updates: int
    blocked_side: Side
    tasks: tuple[TaskCounters, ...]

    @staticmethod
    def from_proto(message: replay_pb2.GetBufferResponse) -> BufferInfo:
        """From the wire."""
        return BufferInfo(
            config=BufferConfig.from_proto(message.config),
            env_steps=message.env_steps,
            env_steps_taken=message.env_steps_taken,
            episodes=message.episodes,
            rows=message.rows,
            demo_rows=message.demo_rows,
            size_bytes=message.size_bytes,
            updates=message.updates,
            blocked_side=Side(message.blocked_side),
            tasks=tuple(
                TaskCounters(task.task, task.env_steps, task.episodes, task.demo_episodes, task.held_episodes)
                for task in message.tasks
            ),
        )


@dataclass(frozen=True)
class Appended:
    """What an append did.

    Attributes:
        duplicate: The episode had been stored before; nothing changed.
        env_steps: Transitions ever appended to the target.
        task_env_steps: The same for the episode's task.
        task_episodes: Episodes ever appended of the episode's task.
        evicted_episodes: Episodes that made room.
    """

    duplicate: bool
    env_steps: int
    task_env_steps: int
    task_episodes: int
    evicted_episodes: int


@dataclass(frozen=True)
class InsertPermit:
    """Whether the collector may go on.

    Attributes:
        granted: False if it still may not; ask again.
        blocked_seconds: How long it was held back.
        blocked_side: INSERT if it was held back at all.
        lead_updates: Updates that the collector leads by; negative if the trainer waits.
        permitted_env_steps: Steps taken up to which it may take another one without asking; None for no bound, or if
            not granted.
    """

    granted: bool
    blocked_seconds: float
    blocked_side: Side
    lead_updates: float
    permitted_env_steps: int | None

    @staticmethod
    def from_proto(message: replay_pb2.AwaitInsertResponse) -> InsertPermit:
        """From the wire."""
        return InsertPermit(
            granted=message.granted,
            blocked_seconds=message.blocked_seconds,
            blocked_side=Side(message.blocked_side),
            lead_updates=message.lead_updates,
            permitted_env_steps=message.permitted_env_steps if message.HasField("permitted_env_steps") else None,
        )


@dataclass(frozen=True)
class HeldDemos:
    """Demonstrations of one task in a set; means over episodes, `mean_success` NaN where undefined."""

    task: str
    episodes: int
    rows: int
    mean_return: float
    mean_score: float
    mean_success: float
    image_dim: int
    image_encoder: str


@dataclass(frozen=True)
class HeldDemoSet:
    """A set of demonstrations as replay holds it.

    Attributes:
        name: Name of the set.
        tasks: Tasks by name.
        size_bytes: Memory of its episodes.
        error: Why it cannot be read; empty for a whole one.
    """

    name: str
    tasks: tuple[HeldDemos, ...]
    size_bytes: int
    error: str

    @staticmethod
    def from_proto(message: replay_pb2.DemoSet) -> HeldDemoSet:
        """From the wire."""
        tasks = tuple(
            HeldDemos(
                task=task.task,
                episodes=task.episodes,
                rows=task.rows,
                mean_return=task.mean_return,
                mean_score=task.mean_score,
                mean_success=task.mean_success,
                image_dim=task.image_dim,
                image_encoder=task.image_encoder,
            )
            for task in message.tasks
        )
        return HeldDemoSet(message.name, tasks, message.size_bytes, message.error)
