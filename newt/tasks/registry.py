"""The registry of all tasks: what each one is, and how a request names a selection of them.

>>> get_task("walker-walk").action_dim
6
>>> [task.name for task in select_tasks(["mw-button-*", "reacher-easy"])][-2:]
['mw-button-press-wall', 'reacher-easy']
"""

import csv
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal, cast

from newt.tasks.corrected_scores import CORRECTED_SCORES, CorrectedScore
from newt.tasks.discounts import discount
from newt.tasks.domains import DOMAINS
from newt.tasks.instructions import load_instructions
from newt.tasks.sets import TASK_SETS

Split = Literal["train", "test", "extra"]

PADDED_OBS_DIM = 128
"""State observations are zero-padded to this width at the edge of the agent."""
PADDED_ACTION_DIM = 16
"""Actions are zero-padded to this width at the edge of the agent."""


@dataclass(frozen=True)
class Task:
    """The facts about one task. Lengths count agent steps, that is, after action repeat.

    Attributes:
        name: unique name, for example ``mw-door-open``.
        domain: a key of `newt.tasks.domains.DOMAINS`.
        split: ``train`` (the 200 of MMBench), ``test`` (the 20 held out) or ``extra`` (held out, unused).
        index: row of the task in published 200-task checkpoints, 0-199; None outside the training split.
        obs_dim: valid entries of the state observation, at most 128.
        action_dim: valid entries of the action, at most 16, each in [-1, 1].
        episode_length: agent steps per episode.
        action_repeat: simulator steps per agent step, rewards summed (RoboDesk and Atari repeat internally).
        discount: γ per agent step.
        has_success: whether the task defines success; if not, success is NaN.
        has_expert: whether a scripted expert can collect demonstrations.
        corrected_score: what reports show instead of the published score, and why; None for nearly all tasks.
        embodiment: what the agent's body is and what each action dimension does.
        goal: what to do with it.
    """

    name: str
    domain: str
    split: Split
    index: int | None
    obs_dim: int
    action_dim: int
    episode_length: int
    action_repeat: int
    discount: float
    has_success: bool
    has_expert: bool
    corrected_score: CorrectedScore | None = field(repr=False)
    embodiment: str = field(repr=False)
    goal: str = field(repr=False)

    @property
    def instruction(self) -> str:
        """The full text that conditions the agent: embodiment first, then the goal."""
        return f"{self.embodiment} {self.goal}"


class UnknownTaskError(ValueError):
    """A name, glob, domain or set that selects no task.

    Attributes:
        spec: what was asked for.
        suggestions: close names that exist, best first.
    """

    def __init__(self, spec: str, suggestions: Sequence[str]) -> None:
        self.spec = spec
        self.suggestions = tuple(suggestions)
        hint = f"did you mean {', '.join(self.suggestions)}?" if suggestions else "`newt tasks` lists all names"
        super().__init__(f"unknown task {spec!r}: not a task, set, domain or matching glob; {hint}")


def all_tasks() -> tuple[Task, ...]:
    """Every registered task: the 200 of MMBench in official order, then the held-out ones."""
    return tuple(_tasks_by_name().values())


def get_task(name: str) -> Task:
    """The task of exactly this name.

    Raises:
        UnknownTaskError: names close matches.
    """
    tasks = _tasks_by_name()
    if name not in tasks:
        raise UnknownTaskError(name, difflib.get_close_matches(name, tasks, n=5))
    return tasks[name]


def select_tasks(specs: Sequence[str]) -> list[Task]:
    """Resolve a run's list of task specs.

    Each spec is one of, tried in this order: a task name; a set name (`newt.tasks.sets.TASK_SETS`); a
    domain name, which stands for the *training* tasks of the domain; a glob with ``*``, ``?`` or
    ``[...]`` over all task names, held-out ones included.

    Args:
        specs: at least one spec.

    Returns:
        The tasks in the order of the specs, each once (at its first mention). Within a set, domain or
        glob the order is the set's own, or else the registry's.

    Raises:
        UnknownTaskError: for the first spec which selects nothing.
        ValueError: if specs is empty, or a plain string.
    """
    if isinstance(specs, str) or not specs:
        raise ValueError(f"expected a list with at least one task, set, domain or glob, got {specs!r}")
    names: dict[str, None] = {}
    for spec in specs:
        names.update(dict.fromkeys(_resolve(spec)))
    return [get_task(name) for name in names]


def _resolve(spec: str) -> list[str]:
    tasks = _tasks_by_name()
    if spec in tasks:
        return [spec]
    if spec in TASK_SETS:
        return TASK_SETS[spec].members(tuple(tasks.values()))
    if spec in DOMAINS:
        return [task.name for task in tasks.values() if task.domain == spec and task.split == "train"]
    if any(sign in spec for sign in "*?["):
        matches = [name for name in tasks if fnmatchcase(name, spec)]
        if matches:
            return matches
    raise UnknownTaskError(spec, difflib.get_close_matches(spec, [*tasks, *TASK_SETS, *DOMAINS], n=5))


@cache
def _tasks_by_name() -> Mapping[str, Task]:
    text = resources.files("newt.tasks").joinpath("tasks.csv").read_text(encoding="utf-8")
    return MappingProxyType(_parse(csv.DictReader(text.splitlines())))


def _parse(rows: Iterable[Mapping[str, str]]) -> dict[str, Task]:
    instructions = load_instructions()
    tasks: dict[str, Task] = {}
    for row in rows:
        name, episode_length = row["name"], int(row["episode_length"])
        text = instructions[name]
        tasks[name] = Task(
            name=name,
            domain=row["domain"],
            split=cast(Split, row["split"]),
            index=int(row["index"]) if row["index"] else None,
            obs_dim=int(row["obs_dim"]),
            action_dim=int(row["action_dim"]),
            episode_length=episode_length,
            action_repeat=int(row["action_repeat"]),
            discount=discount(episode_length, float(row["discount"]) if row["discount"] else None),
            has_success=row["has_success"] == "1",
            has_expert=row["has_expert"] == "1",
            corrected_score=CORRECTED_SCORES.get(name),
            embodiment=text.embodiment,
            goal=text.goal,
        )
    return tasks
