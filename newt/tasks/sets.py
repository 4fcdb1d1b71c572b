"""The named task sets, all in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from newt.tasks.registry import Task


@dataclass(frozen=True)
class TaskSet:
    """A named selection of tasks: either listed by name or defined by a rule.

    Attributes:
        name: what a run request writes.
        description: one line for people.
        names: the members in order, for a listed set.
        rule: decides membership, for a rule-based set; the members are in registry order.
    """

    name: str
    description: str
    names: tuple[str, ...] = ()
    rule: Callable[[Task], bool] | None = None

    def members(self, tasks: Sequence[Task]) -> list[str]:
        """Names of the members, given all registered tasks in registry order."""
        if self.rule is None:
            return list(self.names)
        return [task.name for task in tasks if self.rule(task)]


_SETS = (
    TaskSet(
        "mmbench",
        "the 200 training tasks in the official order (row i of a published checkpoint is task i)",
        rule=lambda task: task.index is not None,
    ),
    TaskSet("test20", "the 20 held-out tasks", rule=lambda task: task.split == "test"),
    TaskSet(
        "extra8",
        "eight more tasks that are neither trained on nor part of the held-out 20",
        rule=lambda task: task.split == "extra",
    ),
    TaskSet(
        "laptop-demo",
        "ten quick tasks from three domains for a run on two CPU cores",
        names=(
            "mw-button-press",
            "mw-drawer-close",
            "mw-window-open",
            "mw-door-close",
            "mw-window-close",
            "mw-drawer-open",
            "cartpole-balance",
            "walker-stand",
            "mujoco-reacher",
            "mujoco-inverted-pendulum",
        ),
    ),
)

TASK_SETS: Mapping[str, TaskSet] = MappingProxyType({task_set.name: task_set for task_set in _SETS})
"""Every named set. A domain's name also works as a set: it stands for the domain's training tasks."""
