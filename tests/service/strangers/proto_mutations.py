"""Messages that are almost right: fields at the ends of their types, parts left out or repeated, bytes damaged."""

from __future__ import annotations

import math
import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_INTS = {
    FieldDescriptor.TYPE_INT32: 31,
    FieldDescriptor.TYPE_INT64: 63,
    FieldDescriptor.TYPE_UINT32: 32,
    FieldDescriptor.TYPE_UINT64: 64,
}
_STRINGS = (
    "",
    "a",
    "é" * 100,
    "\0",
    "../../etc/passwd",
    "a b",
    "x" * 20_000,
    "NaN",
    "{}",
    "[" * 2_000,
    "-1",
    "\U0001f600",
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e30, -1e30, 1e-40, 2.0**63, 0.5)


def mutated(message: Message, draw: random.Random) -> bytes:
    """A message like this one with one to three changes, serialized."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(draw.choice((1, 1, 2, 3))):
        _change(changed, draw)
    raw = changed.SerializeToString()
    return damaged(raw, draw) if draw.random() < 0.25 else raw


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """Bytes that may be no message any more."""
    data = bytearray(raw)
    kind = draw.randrange(5)
    if kind == 0 and data:
        for _ in range(draw.randrange(1, 8)):
            data[draw.randrange(min(len(data), 64))] = draw.randrange(256)
    elif kind == 1:
        del data[draw.randrange(len(data) + 1) :]
    elif kind == 2:
        place = draw.randrange(len(data) + 1)
        data[place:place] = draw.randbytes(draw.randrange(1, 40))
    elif kind == 3:
        data *= 2
    else:
        data = bytearray(draw.randbytes(draw.randrange(200)))
    return bytes(data)


def _change(message: Message, draw: random.Random) -> None:
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = draw.choice(fields)
    if field.message_type is not None:
        _change_part(message, field, draw)
    elif field.is_repeated:
        values = getattr(message, field.name)
        if draw.random() < 0.3:
            del values[:]
        for _ in range(draw.choice((1, 2, 300))):
            values.append(_value(field, draw))
    else:
        setattr(message, field.name, _value(field, draw))


def _change_part(message: Message, field: FieldDescriptor, draw: random.Random) -> None:
    part: Any = getattr(message, field.name)
    choice = draw.random()
    if choice < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        if not part or choice < 0.3:
            _change(part.add(), draw)
        elif choice < 0.5:
            for _ in range(draw.choice((1, 200))):
                part.add().CopyFrom(part[0])
        else:
            _change(part[draw.randrange(len(part))], draw)
    else:
        _change(part, draw)


def _value(field: FieldDescriptor, draw: random.Random) -> Any:
    if field.type in _INTS:
        most = 2 ** _INTS[field.type] - 1
        least = -most - 1 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64) else 0
        small = (0, 1, 2, 3, 64, 65, 1_000, 2**20)
        return draw.choice((*small, most, most - 1, least, draw.randrange(least, most)))
    if field.type == FieldDescriptor.TYPE_ENUM:
        return draw.choice((0, 1, 2, 99, -1, 2**31 - 1))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return draw.random() < 0.5
    if field.type == FieldDescriptor.TYPE_STRING:
        return draw.choice(_STRINGS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw.choice((b"", b"\0" * 31, b"\xff" * 4096, draw.randbytes(64)))
    return draw.choice(_FLOATS)
