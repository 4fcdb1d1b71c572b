"""All checkpoints that a request can name: those of runs, and those brought in from elsewhere.

A reference is `RUN` (its newest), `RUN/NAME`, `RUN/best`, or `imported/NAME`. Resolving one reads the file's header
alone.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from newt.agent.checkpoint_header import CheckpointError
from newt.errors import (
    AlreadyExistsError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    PreconditionError,
    TooLargeError,
)
from newt.runs.base import now
from newt.runs.record import ImportedCheckpoint
from services.learner.checkpoints.files import AnyCheckpoint, AnyHeader, load_any, read_any_header, size_name
from services.learner.checkpoints.folder import SUFFIX, CheckpointFolder, reason, remove_file, shown_name
from services.learner.data_folder import DataFolder

IMPORTED = "imported"
PARTIAL = ".partial"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Longer than a run's name may be, since its id is made from that.
_RUN = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,127}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Resolved:
    """A checkpoint that a reference names.

    Attributes:
        reference: Reference in full: `RUN/NAME` or `imported/NAME`.
        path: Its file.
        header: What it says about itself.
    """

    reference: str
    path: Path
    header: AnyHeader

    @property
    def run_id(self) -> str | None:
        """The run that wrote it; None for an imported one."""
        owner = self.reference.split("/")[0]
        return None if owner == IMPORTED else owner


class CheckpointLibrary:
    """Finds, takes in and removes checkpoints below the learner's data folder.

        library = CheckpointLibrary(data_dir)
        with library.receive("soup-L", max_bytes) as incoming:
            incoming.write(piece)
            incoming.accept()
        library.resolve("imported/soup-L").header.tasks

    Args:
        data_dir: The learner's data folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = DataFolder(data_dir)
        self._imported = self._folder.imported
        for left in self._imported.glob(f".*{PARTIAL}"):  # by a learner that was killed
            left.unlink(missing_ok=True)

    def resolve(self, reference: str, field: str = "checkpoint") -> Resolved:
        """The checkpoint of a reference.

        Args:
            reference: As above.
            field: What to call it in errors.

        Raises:
            InvalidInputError: Not a reference.
            NotFoundError: No such run or checkpoint, or none yet.
            PreconditionError: The file cannot be used.
        """
        owner, slash, name = reference.partition("/")
        if not _RUN.fullmatch(owner) or (slash and not _NAME.fullmatch(name)):
            raise InvalidInputError(field, f"got {reference[:200]!r}, expected RUN, RUN/NAME or {IMPORTED}/NAME")
        if owner == IMPORTED:
            path = self._imported_path(name) if name else None
            if path is None or not path.is_file():
                known = ", ".join(item.name for item in self.imported() if item.broken is None) or "none"
                raise NotFoundError(f"{field}: no imported checkpoint {name!r}; there are: {known}")
        else:
            directory = self._folder.run(owner)
            if not directory.is_dir():
                raise NotFoundError(f"{field}: no run {owner!r} with checkpoints; GET /runs lists all runs")
            folder = CheckpointFolder(directory)
            try:
                name = folder.resolve(name)
            except NotFoundError as error:
                raise NotFoundError(f"{field}: {error}") from error
            path = folder.path(name)
        try:
            return Resolved(f"{owner}/{name}", path, read_any_header(path))
        except CheckpointError as error:
            raise PreconditionError(f"{field}: {reference} cannot be used: {reason(error, path)}") from error

    def imported(self) -> list[ImportedCheckpoint]:
        """All checkpoints that were brought in, by name; those that cannot be read with the reason."""
        return [_describe(path) for path in sorted(self._imported.glob(f"*{SUFFIX}"))]

    def receive(self, name: str, max_bytes: int) -> Incoming:
        """Begins to take in a checkpoint.

        Args:
            name: Its name from now on.
            max_bytes: Most bytes that it may have.

        Raises:
            InvalidInputError: Not a name.
            AlreadyExistsError: The name is taken.
            OSError: The folder is not writable.
        """
        path = self._imported_path(name)
        if path.exists():
            raise _taken(name)
        self._imported.mkdir(parents=True, exist_ok=True)
        return Incoming(path, max_bytes)

    def remove(self, name: str) -> None:
        """Removes an imported checkpoint, whatever its file is. Raises NotFoundError."""
        remove_file(self._imported, name)

    def _imported_path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InvalidInputError("name", f"got {name[:80]!r}, expected 1-64 characters of [A-Za-z0-9._-]")
        return self._imported / f"{name}{SUFFIX}"


class Incoming:
    """A checkpoint on its way in. It has no name before all of it has been checked, and leaves nothing behind if not.

    Args:
        path: Path that it will have.
        max_bytes: Most bytes that it may have.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes, self._size = path, max_bytes, 0
        self._partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{PARTIAL}")
        self._file = self._partial.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Takes the next bytes.

        Raises:
            TooLargeError: They are more than allowed.
            OSError: The disk is full.
        """
        self._size += len(piece)
        if self._size > self._max_bytes:
            raise TooLargeError(
                f"a checkpoint may have {self._max_bytes:,} bytes here; NEWT_LEARNER_MAX_CHECKPOINT_BYTES allows more"
            )
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def accept(self) -> ImportedCheckpoint:
        """Checks all of it and gives it its name.

        Raises:
            InvalidInputError: Not a checkpoint of this project, or one that cannot be used.
            AlreadyExistsError: The name has been taken meanwhile.
            OSError: The disk is full.
        """
        os.fsync(self._file.fileno())
        try:
            load_any(self._partial)
        except CheckpointError as error:
            cause = f"{reason(error, self._partial)}; published files (.pt) are converted by `newt checkpoints import`"
            raise InvalidInputError("file", cause) from error
        try:
            os.link(self._partial, self._path)  # unlike a rename, refuses to replace what came meanwhile
        except FileExistsError as error:
            raise _taken(self._path.name.removesuffix(SUFFIX)) from error
        return _describe(self._path)


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


def load(path: Path) -> AnyCheckpoint:
    """Reads a checkpoint whole. Raises CorruptDataError, NotFoundError."""
    try:
        return load_any(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: the checkpoint is gone") from error
    except CheckpointError as error:
        raise CorruptDataError(str(error)) from error


def _describe(path: Path) -> ImportedCheckpoint:
    """What a file says about itself; nothing in it keeps the others from being listed."""
    size, created, model, encoder, broken = 0, now(), "", None, None
    tasks: list[str] = []
    try:
        stat = path.stat()
        size, created = stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)
        header = read_any_header(path)
        model, tasks = size_name(header), list(header.tasks)
        encoder = header.info.get("text_encoder") or None
    except (OSError, CheckpointError) as error:
        broken = reason(error, path)
        log.warning("checkpoint_unreadable", path=str(path), error=str(error))
    return ImportedCheckpoint(
        name=shown_name(path),
        size_bytes=size,
        model=model,
        tasks=tasks,
        text_encoder=encoder,
        created_at=created,
        broken=broken,
    )


def _taken(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"imported checkpoint {name!r} exists; choose another name or delete it first")
