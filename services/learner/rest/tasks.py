"""The route of tasks."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends

from newt.runs.record import TaskInfo, TaskList
from newt.tasks.registry import Task, all_tasks
from newt.tasks.sets import TASK_SETS
from services.learner.processes.learner import Learner
from services.learner.rest.described import knows_tasks

_COPIED = (
    "name",
    "domain",
    "split",
    "obs_dim",
    "action_dim",
    "episode_length",
    "has_success",
    "has_expert",
    "discount",
    "score_rule",
)


def task_routes(learner: Learner) -> APIRouter:
    """Builds the route."""
    router = APIRouter(tags=["tasks"])

    @router.get("/tasks", dependencies=[Depends(knows_tasks(learner))])
    def list_tasks() -> TaskList:
        """All tasks of Newt and of the simulators, and whether they can be simulated here and now."""
        return TaskList(
            tasks=[
                TaskInfo(
                    **{field: getattr(task, field) for field in _COPIED},
                    instruction=task.instruction,
                    simulator=simulator(task),
                )
                for task in all_tasks()
            ],
            refused=dict(learner.served.described().refused),
            sets={task_set.name: task_set.description for task_set in TASK_SETS.values()},
        )

    def simulator(task: Task) -> Literal["reachable", "unreachable", "not configured"]:
        if task.domain not in learner.settings.sims:
            return "not configured"
        return "reachable" if learner.dependencies.has_sim(task.domain) else "unreachable"

    return router
