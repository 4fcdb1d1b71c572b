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
        name: What a run request writes.
        description: One line for people.
        names: The members in order, for a listed set.
        rule: Decides membership, for a rule-based set; the members are in registry order.
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
        "tour",
        "six quick tasks from three domains for a run on two CPU cores",
        names=(
            "mw-button-press",
            "mw-drawer-close",
            "mw-door-close",
            "mw-window-close",
            "mujoco-reacher",
            "pendulum-spin",
        ),
    ),
    # Seven domains that step in 0.03 to 3 ms (`newt tasks check`), 16 tasks with scripted experts: 3 to 44 observed
    # columns, 1 to 4 actions, 50 to 500 steps, dense and sparse rewards; held-out kin in OGBench and MiniArcade.
    TaskSet(
        "mmbench-mini",
        "16 tasks of seven domains with quick simulators and scripted experts, for experiments on two CPU cores",
        names=(
            "reacher-easy",
            "cartpole-swingup",
            "reacher-three-easy",
            "pendulum-spin",
            "mw-button-press",
            "mw-drawer-open",
            "mw-push",
            "mujoco-inverted-pendulum",
            "mujoco-reacher",
            "lunarlander-land",
            "lunarlander-hover",
            "og-point-arena",
            "og-point-maze",
            "pygame-cowboy",
            "pygame-rocket-collect",
            "pygame-point-maze-var1",
        ),
    ),
    TaskSet(
        "mini-scratch",
        "four quick tasks that two CPU cores teach without demonstrations",
        names=("cartpole-balance", "mujoco-inverted-pendulum", "mujoco-reacher", "pygame-cartpole-balance"),
    ),
)

TASK_SETS: Mapping[str, TaskSet] = MappingProxyType({task_set.name: task_set for task_set in _SETS})
"""Every named set. A domain's name also works as a set: it stands for the domain's training tasks."""

FORMER_NAMES: Mapping[str, str] = MappingProxyType({"laptop-demo": "tour"})
"""Names that sets had before, to those that they have; requests and stored runs have them."""
