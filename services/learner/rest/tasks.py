"""Routes of tasks."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Response

from newt.errors import NotFoundError
from newt.runs.record import BestScores, TaskInfo, TaskList
from newt.tasks.registry import Task, all_tasks
from newt.tasks.sets import TASK_SETS
from services.learner.processes.learner import Learner
from services.learner.processes.task_pictures import TaskPictures
from services.learner.records import best_scores
from services.learner.rest.described import knows_tasks
from services.learner.rest.files import binary

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
    "steps_per_s",
)
_PICTURE = binary("image/webp", "The picture")


def task_routes(learner: Learner) -> APIRouter:
    """Builds the routes."""
    router = APIRouter(tags=["tasks"])
    pictures, scores = TaskPictures(learner.settings), best_scores.BestScores(learner.records)
    known = [Depends(knows_tasks(learner))]

    @router.get("/tasks", dependencies=known)
    def list_tasks() -> TaskList:
        """All tasks of Newt and of the simulators, and whether they can be simulated here and now."""
        return TaskList(
            tasks=[
                TaskInfo(
                    **{field: getattr(task, field) for field in _COPIED},
                    instruction=task.instruction,
                    simulator=simulator(task),
                    picture=pictures.at_hand(task) or (simulator(task) == "reachable" and pictures.can_be_drawn(task)),
                )
                for task in all_tasks()
            ],
            refused=dict(learner.served.described().refused),
            sets={task_set.name: task_set.description for task_set in TASK_SETS.values()},
        )

    @router.get("/tasks/scores")
    def get_best_scores() -> BestScores:
        """The best score of any run here on each task, over all evaluations but those of random actions."""
        return BestScores(scores=scores.read())

    @router.get("/tasks/{name}/picture", dependencies=known, response_class=Response, responses=_PICTURE)
    def get_picture(name: str) -> Response:
        """A small picture of a task; its simulator draws what does not come with the package, which takes a while."""
        task = next((task for task in all_tasks() if task.name == name), None)
        if task is None:
            raise NotFoundError(f"unknown task {name!r}; GET /tasks lists all")
        content = pictures.get(task)
        return Response(content, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})

    def simulator(task: Task) -> Literal["reachable", "unreachable", "not configured"]:
        if task.domain not in learner.settings.sims:
            return "not configured"
        return "reachable" if learner.dependencies.has_sim(task.domain) else "unreachable"

    return router
