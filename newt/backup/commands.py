"""Redis commands in a file, in Redis' own protocol: `redis-cli --pipe` reads it too.

Keys are written by the commands that make them, not dumped: they go into any version of Redis or Valkey, and the rights
that the services have are enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

from newt.backup.manifest import FileEntry
from newt.backup.places import Sink
from newt.errors import CorruptDataError

Word = bytes | str | int

# What makes a key, and what takes back one that was copied and then evicted.
KNOWN = frozenset({b"SET", b"HSET", b"RPUSH", b"SADD", b"ZADD", b"XADD", b"DEL"})
_AT_ONCE = 1_000


class CommandFile:
    """Writes commands.

    with place.create(REDIS) as file:
        out = CommandFile(file)
        out.add("SET", "key", b"value")
    out.entry   # its size and digest
    """

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._digest, self._size = hashlib.sha256(), 0

    @property
    def entry(self) -> FileEntry:
        """Size and digest of what was written."""
        return FileEntry(size_bytes=self._size, sha256=self._digest.hexdigest())

    def add(self, name: str, key: Word, *words: Word) -> None:
        """One command."""
        pieces = [f"*{2 + len(words)}\r\n".encode()]
        for word in (name, key, *words):
            data = word if isinstance(word, bytes) else encoded(word)
            pieces += [b"$%d\r\n" % len(data), data, b"\r\n"]
        data = b"".join(pieces)
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def add_many(self, name: str, key: Word, words: list[bytes], group: int = 1) -> None:
        """A command for each thousand words, in groups that stay together: fields and values, scores and members."""
        step = _AT_ONCE * group
        for start in range(0, len(words), step):
            self.add(name, key, *words[start : start + step])


def encoded(word: str | int) -> bytes:
    """A word as Redis gets it; a name that is no text comes back as what it was."""
    return str(word).encode("utf-8", "surrogateescape")


def read(file: BinaryIO, where: str) -> Iterator[list[bytes]]:
    """The commands of a file. Raises CorruptDataError where it is none of ours, and says where it is."""
    while line := file.readline(32):
        words = [_word(file, where) for _ in range(_number(line, b"*", where))]
        if len(words) < 2 or words[0] not in KNOWN:
            raise CorruptDataError(f"{where} has a command that no backup has: {words[:1]}")
        yield words


def _word(file: BinaryIO, where: str) -> bytes:
    size = _number(file.readline(32), b"$", where)
    data = file.read(size + 2)
    if len(data) != size + 2:
        raise CorruptDataError(f"{where} ends in the middle of a command")
    return data[:-2]


def _number(line: bytes, mark: bytes, where: str) -> int:
    if not line.startswith(mark) or not line[1:-2].isdigit():
        raise CorruptDataError(f"{where} holds no commands of Redis: {line[:20]!r}")
    return int(line[1:-2])
