"""What another version of Newt may have written: records in Redis, files, replies of the REST API.

    run = read(Run, api.get("/runs/r-1"))
    unknown_fields(run.spec)           # ["schedule.pause_s"]: a later version knows it, this one does not
    to_json(job.model_copy(update={"progress": 0.5}))   # such fields are in it again

A request is the opposite: what it has of unknown fields is a mistake, and refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationInfo

M = TypeVar("M", bound=BaseModel)

_STORED = {"stored": True}


def read(model: type[M], values: Any) -> M:
    """Checks values against a model; fields that it does not know are kept aside. Raises ValidationError."""
    return model.model_validate(values, extra="allow", context=_STORED)


def read_json(model: type[M], text: str | bytes) -> M:
    """As `read`, of JSON. Raises ValidationError."""
    return model.model_validate_json(text, extra="allow", context=_STORED)


def being_read(info: ValidationInfo) -> bool:
    """For a model's own validators: whether unknown fields are to pass."""
    return bool(info.context and info.context.get("stored"))


def unknown_fields(value: object) -> list[str]:
    """Fields that were kept aside, as paths: `schedule.pause_s`."""
    return [".".join(path) for path, _ in _unknown(value, ())]


def to_json(model: BaseModel) -> dict[str, Any]:
    """A model as JSON has it, with the fields that were kept aside when it was read."""
    plain: dict[str, Any] = json.loads(model.model_dump_json())  # which has null for what is no number
    for path, value in _unknown(model, ()):
        place: Any = plain
        for name in path[:-1]:
            place = place[int(name) if isinstance(place, list) else name]
        place[path[-1]] = value
    return plain


def _unknown(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths, in the names of JSON, and values."""
    for name, extra in _aside(value).items():
        yield (*path, name), extra
    for name, item in _parts(value):
        yield from _unknown(item, (*path, name))


def _aside(value: object) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return value.__pydantic_extra__ or {}
    if is_dataclass(value) and not isinstance(value, type):
        known = {field.name for field in fields(value)}
        return {name: extra for name, extra in getattr(value, "__dict__", {}).items() if name not in known}
    return {}


def _parts(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield field.serialization_alias or name, getattr(value, name)
    elif is_dataclass(value) and not isinstance(value, type):
        for member in fields(value):
            yield member.name, getattr(value, member.name)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield str(index), item
