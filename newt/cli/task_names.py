"""Tasks by their names: ours from the registry, anybody else's from the learner whose simulators know them."""

from __future__ import annotations

from newt.cli.rest import Api
from newt.errors import InvalidInputError, NewtError
from newt.runs.record import TaskInfo, TaskList
from newt.runs.stored import read
from newt.tasks.registry import Task, UnknownTaskError, get_task

_TOLD = (
    "name",
    "domain",
    "obs_dim",
    "action_dim",
    "episode_length",
    "has_success",
    "has_expert",
    "discount",
    "score_rule",
    "steps_per_s",
)


class TaskNames:
    """Finds tasks; asks the learner once, when a name is not one of ours.

    Args:
        url: The learner's; None: $NEWT_URL, or the local stack.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._asked: tuple[dict[str, TaskInfo], str] | None = None

    def get(self, name: str) -> Task:
        """The task of a name.

        Raises:
            InvalidInputError: Nobody knows it; names close matches.
        """
        try:
            return get_task(name)
        except UnknownTaskError as unknown:
            if self._asked is None:
                self._asked = self._ask()
            told, why_not = self._asked
            if name in told:
                return _task(told[name])
            raise InvalidInputError("task", f"{unknown}{why_not}") from unknown

    def _ask(self) -> tuple[dict[str, TaskInfo], str]:
        try:
            listed = read(TaskList, Api(self._url).get("/tasks"))
        except NewtError as error:
            return {}, f" (no learner was asked for tasks of your own: {error})"
        return {task.name: task for task in listed.tasks}, ""


def _task(info: TaskInfo) -> Task:
    known = {field: getattr(info, field) for field in _TOLD}
    return Task(**known, action_repeat=1, embodiment="", goal=info.instruction)
