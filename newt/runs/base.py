"""What all bodies of the REST API have in common."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class Record(BaseModel):
    """Refuses what it does not know; names in Python and on the wire may differ by an alias."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)
