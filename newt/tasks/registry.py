"""The registry of all tasks: what each one is, and how a request names a selection of them.

>>> get_task("walker-walk").action_dim
6
>>> [task.name for task in select_tasks(["mw-button-*", "reacher-easy"])][-2:]
['mw-button-press-wall', 'reacher-easy']
"""

import csv
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal, cast

from newt.tasks import discounts
from newt.tasks.corrected_scores import CORRECTED_SCORES, CorrectedScore
from newt.tasks.domains import DOMAINS
from newt.tasks.instructions import load_instructions
from newt.tasks.sets import FORMER_NAMES, TASK_SETS

Split = Literal["train", "test", "extra"]


@dataclass(frozen=True)
class Task:
    """One task: all that one must know to play it, to learn it and to report on it.

    Ours come from the table in this package, all others from the simulators that describe them. Lengths count agent
    steps, that is, after action repeat.

    Attributes:
        name: Unique name, for example `mw-door-open`.
        domain: Whose simulator plays it: a key of `newt.tasks.domains.DOMAINS`, or the name under which the learner
            knows a simulator of somebody else's tasks.
        obs_dim: Valid entries of the state observation, at most 128.
        action_dim: Valid entries of the action, at most 16, each in [-1, 1].
        episode_length: Agent steps per episode.
        action_repeat: Simulator steps per agent step, rewards summed (RoboDesk and Atari repeat internally).
        has_success: Whether the task defines success; if not, success is NaN.
        has_expert: Whether a scripted expert can collect demonstrations.
        discount: γ per agent step.
        embodiment: What the agent's body is and what each action dimension does.
        goal: What to do with it.
        split: `train` (the 200 of MMBench, and everybody's own), `test` (the 20 held out) or `extra` (held out,
            unused).
        index: Row of the task in published 200-task checkpoints, 0-199; None for all others.
        corrected_score: What reports show instead of the published score, and why; None for nearly all tasks.
        score_rule: How an episode's score in [0, 1] comes about, in words; empty where the domain's README says it.
        digest: SHA-256 of the code that plays it, as hex; empty where Newt's version tells.
        steps_per_s: Agent steps per second of simulated time; None where the task does not say. Who shows tasks asks
            `newt.tasks.pace`.
    """

    name: str
    domain: str
    obs_dim: int
    action_dim: int
    episode_length: int
    action_repeat: int
    has_success: bool
    has_expert: bool
    discount: float
    embodiment: str = field(repr=False)
    goal: str = field(repr=False)
    split: Split = "train"
    index: int | None = None
    corrected_score: CorrectedScore | None = field(default=None, repr=False)
    score_rule: str = ""
    digest: str = ""
    steps_per_s: float | None = None

    @property
    def instruction(self) -> str:
        """The full text that conditions the agent: embodiment first, then the goal."""
        return f"{self.embodiment} {self.goal}".strip()


class UnknownTaskError(ValueError):
    """A name, glob, domain or set that selects no task.

    Attributes:
        spec: What was asked for.
        suggestions: Close names that exist, best first.
    """

    def __init__(self, spec: str, suggestions: Sequence[str]) -> None:
        self.spec = spec
        self.suggestions = tuple(suggestions)
        hint = f"did you mean {', '.join(self.suggestions)}?" if suggestions else "`newt tasks` lists all names"
        super().__init__(f"unknown task {spec!r}: not a task, set, domain or matching glob; {hint}")


class RefusedTaskError(ValueError):
    """A task that a simulator describes, but that cannot be used: the text says why, and what to do."""


@dataclass(frozen=True)
class Described:
    """What simulators describe beside the tasks of our own table.

    Attributes:
        tasks: Tasks by name.
        refused: Names that cannot be used, and why: two simulators have them, or their facts make no sense.
    """

    tasks: Mapping[str, Task] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


_NOTHING = Described()
_DESCRIBED: ContextVar[Described] = ContextVar("described", default=_NOTHING)


def know(described: Described) -> None:
    """From here on, in this context (a request, a thread), these tasks are known beside those of the table."""
    _DESCRIBED.set(described)


@contextmanager
def knowing(tasks: Iterable[Task]) -> Iterator[None]:
    """Within, these tasks are known as well; one wins over a task of the same name."""
    before = _DESCRIBED.get()
    own = {task.name: task for task in tasks}
    refused = {name: why for name, why in before.refused.items() if name not in own}
    token = _DESCRIBED.set(Described({**before.tasks, **own}, refused))
    try:
        yield
    finally:
        _DESCRIBED.reset(token)


def table_tasks() -> Mapping[str, Task]:
    """Every task of our own table by name: the 200 of MMBench in official order, then the held-out ones."""
    return _table()


def all_tasks() -> tuple[Task, ...]:
    """Every known task: those of the table, then those that simulators describe."""
    return tuple(_tasks_by_name().values())


def get_task(name: str) -> Task:
    """The task of exactly this name.

    Raises:
        UnknownTaskError: Names close matches.
        RefusedTaskError: A simulator describes it, but it cannot be used.
    """
    tasks = _tasks_by_name()
    _require_usable(name)
    if name not in tasks:
        raise UnknownTaskError(name, difflib.get_close_matches(name, tasks, n=5))
    return tasks[name]


def select_tasks(specs: Sequence[str]) -> list[Task]:
    """Resolves a run's list of task specs.

    Each spec is one of, tried in this order: a task name; a set name (`newt.tasks.sets.TASK_SETS`); a
    domain name, which stands for the *training* tasks of the domain; a glob with `*`, `?` or
    `[...]` over all task names, held-out ones included.

    Args:
        specs: At least one spec.

    Returns:
        The tasks in the order of the specs, each once (at its first mention). Within a set, domain or
        glob the order is the set's own, or else the registry's.

    Raises:
        UnknownTaskError: For the first spec which selects nothing.
        RefusedTaskError: A simulator describes a task so that it cannot be used.
        ValueError: If specs is empty, or a plain string.
    """
    if isinstance(specs, str) or not specs:
        raise ValueError(f"expected a list with at least one task, set, domain or glob, got {specs!r}")
    names: dict[str, None] = {}
    for spec in specs:
        names.update(dict.fromkeys(_resolve(spec)))
    return [get_task(name) for name in names]


def _resolve(spec: str) -> list[str]:
    tasks = _tasks_by_name()
    spec = FORMER_NAMES.get(spec, spec)
    _require_usable(spec)
    if spec in tasks:
        return [spec]
    if spec in TASK_SETS:
        return TASK_SETS[spec].members(tuple(tasks.values()))
    domains = dict.fromkeys((*DOMAINS, *(task.domain for task in tasks.values())))
    if spec in domains:
        return [task.name for task in tasks.values() if task.domain == spec and task.split == "train"]
    if any(sign in spec for sign in "*?["):
        matches = [name for name in tasks if fnmatchcase(name, spec)]
        if matches:
            return matches
    raise UnknownTaskError(
        spec, difflib.get_close_matches(spec, list(dict.fromkeys([*tasks, *TASK_SETS, *domains])), n=5)
    )


def _require_usable(name: str) -> None:
    if name in _DESCRIBED.get().refused:
        raise RefusedTaskError(_DESCRIBED.get().refused[name])


def _tasks_by_name() -> Mapping[str, Task]:
    described = _DESCRIBED.get().tasks
    return {**_table(), **described} if described else _table()


@cache
def _table() -> Mapping[str, Task]:
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
            discount=discounts.discount(episode_length, float(row["discount"]) if row["discount"] else None),
            has_success=row["has_success"] == "1",
            has_expert=row["has_expert"] == "1",
            corrected_score=CORRECTED_SCORES.get(name),
            embodiment=text.embodiment,
            goal=text.goal,
            steps_per_s=float(row["steps_per_s"]),
        )
    return tasks
