"""The learner's folders, copied while it writes to them.

What matters there appears whole, by a rename, or only grows (logs). So a file is copied as it is; one that is gone when
its turn comes was replaced by a newer one, and the folder is read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from newt.backup.manifest import FileEntry

FOLDERS = ("runs", "checkpoints", "evaluations", "demos")
"""What is kept of the learner's data: not what it computes or downloads again, nor plays that are under way."""
LEARNER_LOCK = "learner.lock"
_CHUNK_BYTES = 2**20
_READINGS = 5
_NOT_KEPT = (".lock", ".partial")


def copy_folder(source: Path, target: Path) -> dict[str, FileEntry]:
    """Copies the files of a folder that may change meanwhile.

    Returns:
        Sizes and digests by path in the folder.
    """
    copied: dict[str, FileEntry] = {}
    for _ in range(_READINGS):
        whole = True
        for path in _files(source):
            name = path.relative_to(source).as_posix()
            if name in copied:
                continue
            try:
                copied[name] = copy_file(path, target / name)
            except FileNotFoundError:
                whole = path.parent.exists()
        if whole:
            break
    return copied


def copy_file(source: Path, target: Path) -> FileEntry:
    """Copies one file; returns size and digest of the copy. Raises FileNotFoundError if the source is gone."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as old:
        times = os.fstat(old.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as new:
            while chunk := old.read(_CHUNK_BYTES):
                new.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            new.flush()
            os.fsync(new.fileno())
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # checkpoints are listed with it
    return FileEntry(size_bytes=size, sha256=digest.hexdigest())


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root) / name
            if path.is_file() and not path.is_symlink() and not name.endswith(_NOT_KEPT):
                yield path
