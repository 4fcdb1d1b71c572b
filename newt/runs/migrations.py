"""What stored records looked like before, and how they become what this version reads.

A record carries the number of its schema. The number grows only with a change that a version of before would misread:
a field that goes or means something else. A new field is none, since whoever does not know it keeps and ignores it.
Each such change adds a step here, from the number before to the next. Steps work on JSON, and on the way out of the
store alone: what is stored stays as it is until somebody changes it, so that the version of before can still be gone
back to.

Number 0 is that of records from before there were numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from newt.errors import LaterVersionError

SCHEMA_VERSION = 1
FIELD = "schema_version"
"""Where a record has its number."""

Json = dict[str, Any]
Kind = Literal["run", "evaluation", "demonstrations", "result"]
"""result: what an evaluation of a run has brought."""


def migrate(kind: Kind, record: Json) -> Json:
    """A record as this version has it, without its number.

    Args:
        kind: What it is a record of. Of a run: its `spec`, and `tasks`, the names that these stood for.
        record: JSON as it is stored.

    Raises:
        LaterVersionError: A later version has written it.
        ValueError: Its number is none.
    """
    if not isinstance(record, dict):
        raise ValueError(f"it is JSON of type {type(record).__name__}, expected an object")
    number = number_of(record.get(FIELD, 0))
    if number > SCHEMA_VERSION:
        raise LaterVersionError("it", number, SCHEMA_VERSION)
    record = {name: value for name, value in record.items() if name != FIELD}
    for step in _STEPS[number:]:
        record = step.get(kind, _as_it_is)(record)
    return record


def number_of(value: object) -> int:
    """The number that a record has, as JSON or text. Raises ValueError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).isdecimal() or len(str(value)) > 9:
        raise ValueError(f"{FIELD} is {str(value)[:40]!r}, expected a whole number")
    return int(value)


def _as_it_is(record: Json) -> Json:
    return record


def _run_with_names(record: Json) -> Json:
    """0.1.0 stored a run's globs, which may stand for other tasks by now, and beside them what they stood for."""
    return {**record, "spec": {**record["spec"], "tasks": record["tasks"]}}


_STEPS: tuple[dict[Kind, Callable[[Json], Json]], ...] = ({"run": _run_with_names},)
"""By the number that they start from."""
