"""Where a backup lies: in a folder, or below a prefix of a bucket."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from newt.errors import InvalidInputError

S3 = "s3://"


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Takes all of them."""


class Place(Protocol):
    """Files by name (`data/runs/x/y`). Its text is its address, for people.

    Errors of the disk are OSErrors, as of any file; errors of a bucket are ours, and say which bucket.
    """

    def entries(self) -> list[str] | None:
        """First parts of the names that are there; None if there is something else here than names."""

    def has(self, name: str) -> bool:
        """Whether a file is there, whole."""

    def create(self, name: str, mtime_ns: int | None = None) -> AbstractContextManager[Sink]:
        """Writes a file, which is there when the block ends, and on the disk.

        Args:
            name: Its name.
            mtime_ns: When it was changed last, where the place can keep that.
        """

    def put(self, name: str, data: bytes) -> None:
        """Writes a file that is there whole or not at all."""

    def open(self, name: str) -> BinaryIO:
        """Reads a file. Raises OSError if it cannot be read."""

    def child(self, name: str) -> Place:
        """A place inside this one."""

    def clear(self, name: str) -> None:
        """Removes all files below a name."""

    def remove(self, names: tuple[str, ...], *, itself: bool) -> bool:
        """Removes files and what is below names, in this order; and the place, if it is empty then.

        Returns:
            Whether nothing is left.
        """


def at(target: str | Path) -> Place:
    """The place of an address.

    Raises:
        InvalidInputError: The address makes no sense.
        UnavailableError: It is in a bucket, and the library for that is not installed.
    """
    text = str(target)
    if isinstance(target, str) and (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)):
        if scheme.group() != S3:
            raise InvalidInputError("PLACE", f"got {text}, expected a folder or {S3}BUCKET/PATH")
        from newt.backup.buckets import BucketPlace

        return BucketPlace.of(text)
    return FolderPlace(Path(target))


class FolderPlace:
    """A folder, which need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def entries(self) -> list[str] | None:
        """See Place."""
        if not self._folder.exists():
            return []
        return sorted(os.listdir(self._folder)) if self._folder.is_dir() else None

    def has(self, name: str) -> bool:
        """See Place."""
        return (self._folder / name).is_file()

    @contextmanager
    def create(self, name: str, mtime_ns: int | None = None) -> Iterator[Sink]:
        """See Place."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mtime_ns is not None:
            os.utime(path, ns=(mtime_ns, mtime_ns))

    def put(self, name: str, data: bytes) -> None:
        """See Place."""
        partial = f"{name}.partial"
        with self.create(partial) as out:
            out.write(data)
        (self._folder / partial).replace(self._folder / name)

    def open(self, name: str) -> BinaryIO:
        """See Place."""
        return (self._folder / name).open("rb")

    def child(self, name: str) -> FolderPlace:
        """See Place."""
        return FolderPlace(self._folder / name)

    def clear(self, name: str) -> None:
        """See Place."""
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def remove(self, names: tuple[str, ...], *, itself: bool) -> bool:
        """See Place."""
        for name in names:
            path = self._folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if itself and self.entries() == []:
            shutil.rmtree(self._folder, ignore_errors=True)
        return not self.entries()
