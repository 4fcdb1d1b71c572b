"""What all bodies of the REST API have in common."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TRACEPARENT = "W3C traceparent that its processes and their calls are children of; null if it is part of no trace."
OWNER = "Who asked for it; null where tokens have no names, and in records of before they had."


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def problems_of(error: ValidationError) -> str:
    """What is wrong, each with its field, in one line."""
    found = [(".".join(str(part) for part in item["loc"]), item["msg"]) for item in error.errors()]
    return "; ".join(f"{place}: {message}" if place else message for place, message in found)


class Record(BaseModel):
    """Refuses what it does not know; names in Python and on the wire may differ by an alias."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)


class BrokenRecord(Record):
    """A stored record that cannot be read. Everything else goes on without it; DELETE removes it."""

    kind: str = Field(description="run, evaluation or demonstrations; people: the file of tokens.")
    id: str
    error: str = Field(description="What is wrong with it, and how to remove it.")
