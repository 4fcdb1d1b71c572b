"""The learner's folders, copied while it writes to them.

What matters there appears whole, by a rename, or only grows (logs). So a file is copied as it is; one that is gone when
its turn comes was replaced by a newer one, and the folder is read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from newt.backup.manifest import FileEntry
from newt.backup.places import Place, Sink

FOLDERS = ("runs", "checkpoints", "evaluations", "demos")
"""What is kept of the learner's data: not what it computes or downloads again, nor plays that are under way."""
LEARNER_LOCK = "learner.lock"
_CHUNK_BYTES = 2**20
_READINGS = 5
_NOT_KEPT = (".lock", ".partial")


def copy_folder(source: Path, place: Place, into: str) -> dict[str, FileEntry]:
    """Copies the files of a folder that may change meanwhile.

    Args:
        source: The folder.
        place: Where the backup lies.
        into: Name of the folder there.

    Returns:
        Sizes and digests by name in the place.
    """
    copied: dict[str, FileEntry] = {}
    for _ in range(_READINGS):
        whole = True
        for path in _files(source):
            name = f"{into}/{path.relative_to(source).as_posix()}"
            if name in copied:
                continue
            try:
                copied[name] = copy_file(path, place, name)
            except FileNotFoundError:
                whole = path.parent.exists()
        if whole:
            break
    return copied


def copy_file(source: Path, place: Place, name: str) -> FileEntry:
    """Copies one file; returns size and digest of the copy. Raises FileNotFoundError if the source is gone."""
    with source.open("rb") as old:
        mtime_ns = os.fstat(old.fileno()).st_mtime_ns  # checkpoints are listed with it
        with place.create(name, mtime_ns) as out:
            return copy_bytes(old, out).model_copy(update={"mtime_ns": mtime_ns})


def copy_bytes(source: BinaryIO, target: Sink | None) -> FileEntry:
    """Copies what is left to read, or only reads it; returns its size and digest."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK_BYTES):
        if target is not None:
            target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return FileEntry(size_bytes=size, sha256=digest.hexdigest())


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not path.is_symlink() and not name.endswith(_NOT_KEPT):
                yield path
