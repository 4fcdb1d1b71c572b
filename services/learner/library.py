"""All checkpoints that a request can name: those of runs, and those brought in from elsewhere.

A reference is `RUN` (its newest), `RUN/NAME`, or `imported/NAME`. Resolving one reads the file's header alone.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from newt.agent.checkpoints import Checkpoint, CheckpointError, Header, load_checkpoint, read_header
from newt.errors import AlreadyExistsError, CorruptDataError, InvalidInputError, NotFoundError
from newt.runs.record import ImportedCheckpoint
from services.learner.checkpoints import SUFFIX, CheckpointFolder

IMPORTED = "imported"
NEWEST = "newest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Resolved:
    """A checkpoint that a reference names.

    Attributes:
        reference: In full: `RUN/NAME` or `imported/NAME`.
        path: Its file.
        header: What it says about itself.
    """

    reference: str
    path: Path
    header: Header

    @property
    def run_id(self) -> str | None:
        """The run that wrote it; None for an imported one."""
        owner = self.reference.split("/")[0]
        return None if owner == IMPORTED else owner


class CheckpointLibrary:
    """Finds, takes in and removes checkpoints below the learner's data folder.

        library = CheckpointLibrary(data_dir)
        library.add("soup-L", chunks)
        library.resolve("imported/soup-L").header.tasks

    Args:
        data_dir: The learner's data folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self._runs = data_dir / "runs"
        self._imported = data_dir / "checkpoints"

    def resolve(self, reference: str, field: str = "checkpoint") -> Resolved:
        """The checkpoint of a reference.

        Args:
            reference: As above.
            field: What to call it in errors.

        Raises:
            InvalidInputError: Not a reference.
            NotFoundError: No such run or checkpoint, or none yet.
            CorruptDataError: The file cannot be read.
        """
        owner, slash, name = reference.partition("/")
        if not _NAME.fullmatch(owner) or (slash and not _NAME.fullmatch(name)):
            raise InvalidInputError(field, f"got {reference!r}, expected RUN, RUN/NAME or {IMPORTED}/NAME")
        if owner == IMPORTED:
            path = self._imported_path(name) if name else None
            if path is None or not path.is_file():
                known = ", ".join(item.name for item in self.imported()) or "none"
                raise NotFoundError(f"{field}: no imported checkpoint {name!r}; there are: {known}")
        else:
            if not (self._runs / owner).is_dir():
                raise NotFoundError(f"{field}: no run {owner!r} with checkpoints; GET /runs lists all runs")
            folder = CheckpointFolder(self._runs / owner)
            if name in ("", NEWEST):
                names = [checkpoint.name for checkpoint in folder.list()]
                if not names:
                    raise NotFoundError(f"{field}: run {owner} has no checkpoint yet")
                name = names[-1]
            path = folder.path(name)
        try:
            return Resolved(f"{owner}/{name}", path, read_header(path))
        except CheckpointError as error:
            raise CorruptDataError(str(error)) from error

    def imported(self) -> list[ImportedCheckpoint]:
        """All checkpoints that were brought in, by name; unreadable ones are left out."""
        found = []
        for path in sorted(self._imported.glob(f"*{SUFFIX}")):
            try:
                found.append(_describe(path))
            except (OSError, CheckpointError, KeyError) as error:
                log.warning("checkpoint_unreadable", path=str(path), error=str(error))
        return found

    def add(self, name: str, pieces: Iterable[bytes]) -> ImportedCheckpoint:
        """Takes in a checkpoint, after checking all of it.

        Args:
            name: Its name from now on.
            pieces: The file's bytes.

        Raises:
            InvalidInputError: Not a name, or not a checkpoint of this project.
            AlreadyExistsError: The name is taken.
        """
        path = self._imported_path(name)
        if path.exists():
            raise AlreadyExistsError(f"imported checkpoint {name!r} exists; choose another name or delete it first")
        self._imported.mkdir(parents=True, exist_ok=True)
        partial = self._imported / f".{name}.{uuid.uuid4().hex}"
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            try:
                load_checkpoint(partial)
            except CheckpointError as error:
                cause = str(error).replace(str(partial), "the file")
                raise InvalidInputError(
                    "file", f"{cause}; published files (.pt) are converted by `newt checkpoints import`"
                ) from error
            try:
                os.link(partial, path)  # unlike a rename, refuses to replace what came meanwhile
            except FileExistsError as error:
                raise AlreadyExistsError(f"imported checkpoint {name!r} exists; choose another name") from error
        finally:
            partial.unlink(missing_ok=True)
        return _describe(path)

    def remove(self, name: str) -> None:
        """Removes an imported checkpoint. Raises NotFoundError."""
        self.resolve(f"{IMPORTED}/{name}")
        self._imported_path(name).unlink(missing_ok=True)

    def _imported_path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInputError("name", f"got {name!r}, expected 1-64 characters of [A-Za-z0-9._-]")
        return self._imported / f"{name}{SUFFIX}"


def hold(checkpoint: Path, copy: Path) -> None:
    """Gives a file a second name, so that it outlives the first: checkpoints are pruned, runs deleted."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(checkpoint, copy)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without links
        partial = copy.with_name(f".{copy.name}")
        shutil.copyfile(checkpoint, partial)
        partial.replace(copy)


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint whole. Raises CorruptDataError, NotFoundError."""
    try:
        return load_checkpoint(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: the checkpoint is gone") from error
    except CheckpointError as error:
        raise CorruptDataError(str(error)) from error


def _describe(path: Path) -> ImportedCheckpoint:
    header, stat = read_header(path), path.stat()
    return ImportedCheckpoint(
        name=path.name.removesuffix(SUFFIX),
        size_bytes=stat.st_size,
        model=header.model_config.size,
        tasks=list(header.tasks),
        text_encoder=header.info.get("text_encoder") or None,
        created_at=datetime.fromtimestamp(stat.st_mtime, UTC),
    )
