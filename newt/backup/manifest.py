"""The manifest of a backup: what is in it, and that it is whole. It comes last; a folder without it is no backup."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newt.errors import CorruptDataError, NotFoundError, PreconditionError

FORMAT = 1
"""Version of what a backup consists of; a higher one is refused."""
NAME = "manifest.json"
REDIS = "redis.resp"
DATA = "data"
_CHUNK_BYTES = 2**20


class FileEntry(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int = Field(ge=0)
    sha256: str


class Manifest(BaseModel):
    """What a backup holds. What a later version of the same format adds is ignored."""

    model_config = ConfigDict(extra="ignore")

    format: int = FORMAT
    newt_version: str
    created_at: datetime
    data_dir: str = Field(description="The learner's folder that was backed up, as the records of runs name it.")
    runs: int = 0
    evaluations: int = 0
    buffers: int = 0
    demo_sets: int = 0
    episodes: int = 0
    files: dict[str, FileEntry] = Field(default_factory=dict, description="By path in the backup.")

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.files.values())

    def summary(self) -> str:
        """What it holds, in one line."""
        return (
            f"{self.runs} runs, {self.evaluations} evaluations, {self.episodes} episodes in {self.buffers} buffers and "
            f"{self.demo_sets} demonstration sets, {self.size_bytes / 1e6:.1f} MB"
        )


def write(folder: Path, manifest: Manifest) -> None:
    """Makes a backup of a folder whose files are all there."""
    partial = folder / f"{NAME}.partial"
    with partial.open("w") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / NAME)


def read(folder: Path) -> Manifest:
    """The manifest of a backup.

    Raises:
        NotFoundError: The folder is no backup, or one that was not finished.
        PreconditionError: A later version has made it.
        CorruptDataError: It cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        raise NotFoundError(f"{folder} is no backup: it has no {NAME}, which is written when everything else is there")
    try:
        values = json.loads(path.read_bytes())
        if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise PreconditionError(
                f"{folder} has format {values['format']}, this version knows formats up to {FORMAT}; restore it with "
                f"Newt {values.get('newt_version', 'of a later version')} or later"
            )
        manifest = Manifest.model_validate(values)
    except (ValueError, RecursionError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CorruptDataError(f"{path} is damaged ({what}); nothing was restored: take another backup") from error
    for name in manifest.files:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or (name != REDIS and inside.parts[:1] != (DATA,)):
            raise CorruptDataError(f"{path} is damaged: it names {name!r}; nothing was restored: take another backup")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Reads all files of a backup. Raises CorruptDataError for the first that is not as it was written."""
    if REDIS not in manifest.files:
        raise CorruptDataError(f"{folder / NAME} is damaged: it does not name {REDIS}; take another backup")
    for name, entry in manifest.files.items():
        try:
            found = entry_of(folder / name)
        except OSError as error:
            raise CorruptDataError(
                f"{folder / name} cannot be read ({error.strerror}); nothing was restored: take another backup"
            ) from error
        if found != entry:
            raise CorruptDataError(
                f"{folder / name} is damaged: got {found.size_bytes} bytes with SHA-256 {found.sha256[:12]}, expected "
                f"{entry.size_bytes} with {entry.sha256[:12]}; nothing was restored: take another backup"
            )


def entry_of(path: Path) -> FileEntry:
    """Size and digest of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size_bytes=size, sha256=digest.hexdigest())
