"""The demonstration sets that replay has."""

from __future__ import annotations

import math

import grpc

from newt.client.replay import ReplayClient
from newt.errors import UnavailableError
from newt.runs.record import DemoSetInfo, DemoSetList, DemoTaskInfo

TIMEOUT_S = 2.0


def list_demo_sets(target: str) -> DemoSetList:
    """All sets with their contents by task. Raises UnavailableError."""
    try:
        with ReplayClient(target) as replay:
            found = replay.list_demo_sets(timeout_s=TIMEOUT_S)
    except grpc.RpcError as error:
        raise UnavailableError(f"replay at {target} does not answer; start it and retry") from error
    return DemoSetList(
        demo_sets=[
            DemoSetInfo(
                name=demo_set.name,
                size_bytes=demo_set.size_bytes,
                tasks=[
                    DemoTaskInfo(
                        task=task.task,
                        episodes=task.episodes,
                        rows=task.rows,
                        mean_return=task.mean_return,
                        mean_score=task.mean_score,
                        mean_success=None if math.isnan(task.mean_success) else task.mean_success,
                    )
                    for task in demo_set.tasks
                ],
            )
            for demo_set in found
        ]
    )
