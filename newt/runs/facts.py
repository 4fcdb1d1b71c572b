"""Facts of tasks in records and checkpoints: what a task was when somebody began to work on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from newt.tasks.registry import Task, get_task, table_tasks

_FACTS = TypeAdapter(list[Task])


def read_facts(values: object) -> list[Task]:
    """Facts of tasks from a record or a checkpoint; none of records that have none. Raises ValidationError."""
    return _FACTS.validate_python(values or [])


def plain_facts(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Facts of tasks as JSON has them; inverse of `read_facts`."""
    plain: list[dict[str, Any]] = _FACTS.dump_python(list(tasks), mode="json")
    return plain


def facts_to_tell(tasks: Sequence[Task]) -> list[Task]:
    """The facts of a run's tasks, or none if every reader has them in our own table."""
    return [] if all(table_tasks().get(task.name) == task for task in tasks) else list(tasks)


def tasks_of(names: Sequence[str], facts: Sequence[Task]) -> list[Task]:
    """The tasks of these names: as stored, or as known here in records of before facts were stored.

    Raises:
        UnknownTaskError: One is neither stored nor known.
    """
    stored = {task.name: task for task in facts}
    return [stored.get(name) or get_task(name) for name in names]
