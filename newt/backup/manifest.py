"""The manifest of a backup: what is in it, and that it is whole. It comes last; a place without it holds no backup."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newt.backup.places import Place
from newt.errors import CorruptDataError, NotFoundError, PreconditionError

FORMAT = 1
"""Version of what a backup consists of; a higher one is refused."""
NAME = "manifest.json"
REDIS = "redis.resp"
SHARDS = "shards"
DATA = "data"


class FileEntry(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int = Field(ge=0)
    sha256: str
    mtime_ns: int | None = Field(default=None, description="When the file was changed last; buckets do not keep that.")

    def is_same(self, other: FileEntry) -> bool:
        """Whether both are of the same bytes."""
        return (self.size_bytes, self.sha256) == (other.size_bytes, other.sha256)


class Manifest(BaseModel):
    """What a backup holds. What a later version of the same format adds is ignored."""

    model_config = ConfigDict(extra="ignore")

    format: int = FORMAT
    newt_version: str
    created_at: datetime
    data_dir: str = Field(description="The learner's folder that was backed up, as the records of runs name it.")
    shards: int = Field(default=1, ge=1, le=1_000, description="Replay services, each with a Redis of its own.")
    runs: int = 0
    evaluations: int = 0
    buffers: int = 0
    demo_sets: int = 0
    episodes: int = 0
    files: dict[str, FileEntry] = Field(default_factory=dict, description="By path in the backup.")

    @property
    def redis_files(self) -> list[str]:
        """Names of the files with what each Redis held, in the order of the replay services."""
        return [redis_file(shard) for shard in range(self.shards)]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.size_bytes for entry in self.files.values())

    def summary(self) -> str:
        """What it holds, in one line."""
        return (
            f"{self.runs} runs, {self.evaluations} evaluations, {self.episodes} episodes in {self.buffers} buffers and "
            f"{self.demo_sets} demonstration sets"
            + (f" of {self.shards} replay services" if self.shards > 1 else "")
            + f", {self.size_bytes / 1e6:.1f} MB"
        )


def redis_file(shard: int) -> str:
    """Name of the file with what the Redis of a replay service held; that of the first has the records as well."""
    return f"{SHARDS}/{shard}.resp" if shard else REDIS


def write(place: Place, manifest: Manifest) -> None:
    """Makes a backup of a place whose files are all there."""
    place.put(NAME, manifest.model_dump_json(indent=1).encode())


def read(place: Place) -> Manifest:
    """The manifest of a backup.

    Raises:
        NotFoundError: The place holds no backup, or one that was not finished.
        PreconditionError: A later version has made it.
        CorruptDataError: It cannot be read.
    """
    path = f"{place}/{NAME}"
    if not place.has(NAME):
        raise NotFoundError(f"{place} is no backup: it has no {NAME}, which is written when everything else is there")
    with place.open(NAME) as file:
        text = file.read()
    try:
        values = json.loads(text)
        if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise PreconditionError(
                f"{place} has format {values['format']}, this version knows formats up to {FORMAT}; restore it with "
                f"Newt {values.get('newt_version', 'of a later version')} or later"
            )
        manifest = Manifest.model_validate(values)
    except (ValueError, RecursionError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise CorruptDataError(f"{path} is damaged ({what}); nothing was restored: take another backup") from error
    redis_files = manifest.redis_files
    for name in manifest.files:
        inside = PurePosixPath(name)
        known = name in redis_files or inside.parts[:1] == (DATA,)
        if inside.is_absolute() or ".." in inside.parts or not known:
            raise CorruptDataError(f"{path} is damaged: it names {name!r}; nothing was restored: take another backup")
    return manifest
