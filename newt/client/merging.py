"""What several shards say of a buffer or a demo set, put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from newt.client.buffers import BufferInfo, HeldDemoSet, Side, TaskCounters


def merged_buffer(infos: Sequence[BufferInfo]) -> BufferInfo:
    """A buffer as if one service held it.

    Args:
        infos: Its parts, in the order of the shards; all have the same tasks.
    """
    first, env_steps = infos[0], sum(info.env_steps for info in infos)
    sides = [info.blocked_side for info in infos if info.blocked_side is not Side.NOBODY]
    return BufferInfo(
        config=replace(first.config, capacity_rows=sum(info.config.capacity_rows for info in infos), placement=None),
        env_steps=env_steps,
        env_steps_taken=max(env_steps, *(info.env_steps_taken for info in infos)),
        episodes=sum(info.episodes for info in infos),
        rows=sum(info.rows for info in infos),
        demo_rows=sum(info.demo_rows for info in infos),
        size_bytes=sum(info.size_bytes for info in infos),
        updates=max(info.updates for info in infos),
        blocked_side=sides[0] if sides else Side.NOBODY,
        tasks=tuple(_task(counters) for counters in zip(*(info.tasks for info in infos), strict=True)),
    )


def merged_demo_sets(parts: Iterable[HeldDemoSet]) -> list[HeldDemoSet]:
    """Demo sets by name, each with its tasks of all shards; one that a shard cannot read is as broken as a whole one.

    Args:
        parts: What each shard holds, one after the other.
    """
    merged: dict[str, HeldDemoSet] = {}
    for part in parts:
        other = merged.get(part.name, HeldDemoSet(part.name, (), 0, ""))
        error = other.error or part.error
        tasks = tuple(sorted((*other.tasks, *part.tasks), key=lambda task: task.task))
        merged[part.name] = HeldDemoSet(part.name, () if error else tasks, other.size_bytes + part.size_bytes, error)
    return [merged[name] for name in sorted(merged)]


def _task(parts: Sequence[TaskCounters]) -> TaskCounters:
    return TaskCounters(
        task=parts[0].task,
        env_steps=sum(part.env_steps for part in parts),
        episodes=sum(part.episodes for part in parts),
        demo_episodes=sum(part.demo_episodes for part in parts),
        held_episodes=sum(part.held_episodes for part in parts),
    )
