"""What a session's handler and a worker say to each other; everything big goes through the session's block.

Each session has one socket to each of its workers. It keeps message boundaries, and its end of file tells either
side that the other is gone, at once and without a thread that watches.

    control socket   parent -> worker   a GroupSpec, with the block's and the session socket's descriptors
                     worker -> parent   READY, once
    session socket   parent -> worker   BUILD + row | RESET | STEP | DRAW
                     worker -> parent   DONE | FAILED + text
"""

from __future__ import annotations

import struct

READY = b"u"
BUILD = b"b"
RESET = b"r"
STEP = b"s"
DRAW = b"d"
DONE = b"."
FAILED = b"!"

MAX_MESSAGE_BYTES = 128 * 1024
"""Longest message either side sends: a GroupSpec of 1,000 instances."""

MAX_ANSWER_BYTES = 4096
"""Longest answer of a worker; what is beyond of an error's text is cut."""

_ROW = struct.Struct("<I")


def pack_build(row: int) -> bytes:
    """The request to build one row."""
    return BUILD + _ROW.pack(row)


def unpack_build(message: bytes) -> int:
    """The row of a BUILD message."""
    return int(_ROW.unpack_from(message, 1)[0])
