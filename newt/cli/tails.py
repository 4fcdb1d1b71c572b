"""The ends of files that others write."""

from __future__ import annotations

import os
from pathlib import Path

_CHUNK_BYTES = 65_536


class Tail:
    """The end of one log file.

    Args:
        path: It need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._path = path
        self._position = 0
        self._rest = b""

    def last(self, count: int) -> list[str]:
        """The last lines; what is written from now on is news."""
        try:
            with self._path.open("rb") as file:
                start = self._position = file.seek(0, os.SEEK_END)
                content = b""
                while start and content.count(b"\n") <= count:
                    step = min(start, _CHUNK_BYTES)
                    start -= step
                    file.seek(start)
                    content = file.read(step) + content
        except OSError:
            return []
        lines = content.decode(errors="replace").splitlines()
        return lines[-count:] if count else []

    def news(self) -> list[str]:
        """Whole lines that were written since; a file that was cut off is read from its beginning."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._position:
                    self._position, self._rest = 0, b""
                file.seek(self._position)
                content = file.read()
        except OSError:
            return []
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        return [line.decode(errors="replace") for line in lines]
