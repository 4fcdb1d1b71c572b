"""Puts a backup into an empty Redis and an empty data folder."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from newt.backup import commands, folders, manifest, places, redis_side
from newt.backup.manifest import DATA, Manifest
from newt.backup.places import Place, Sink
from newt.errors import CorruptDataError, ExhaustedError, ForbiddenError, PreconditionError, UnavailableError

_STAGE = ".restoring"
_BATCH_BYTES = 8 * 2**20
_BATCH_COMMANDS = 1_000


def restore(source: str | Path, redis_urls: Sequence[str], data: Path) -> Manifest:
    """Restores a backup, all or nothing: it is read through before anything is written.

    Args:
        source: Folder of a backup, or s3://BUCKET/PATH.
        redis_urls: Address of a Redis without anything of Newt, with its password; of as many as the backup is of, in
            the order of NEWT_LEARNER_REPLAY.
        data: Data folder of a learner that is not running; made if it is missing.

    Returns:
        What was restored.

    Raises:
        NotFoundError: It is no backup.
        CorruptDataError: It is damaged.
        PreconditionError: A later version has made it, it is of another number of replay services, or Redis or the data
            folder is not empty or in use.
        UnavailableError: Redis or the bucket's storage cannot be reached.
        ForbiddenError: The storage refuses the keys that it is given.
        ExhaustedError: There is no room. As with every error, what was written is removed.
    """
    place = places.at(source)
    found = manifest.read(place)
    if found.shards != len(redis_urls):
        raise PreconditionError(
            f"{place} is of {found.shards} replay services, each with a Redis of its own; got {len(redis_urls)} Redis, "
            f"expected {found.shards}. Nothing was changed"
        )
    verify(place, found)
    clients = [redis_side.connect(url) for url in redis_urls]
    with _unused(data), redis_side.translated():
        _require_empty(clients, data)
        _require_room(data, found)
        try:
            _copy_files(place, found, data)
            for client, name in zip(clients, found.redis_files, strict=True):
                _run_commands(client, place, name)
            _point_at(clients[0], found, data)
            for entry in (data / _STAGE).iterdir():
                entry.rename(data / entry.name)  # onto an empty folder at most
            (data / _STAGE).rmdir()
        except BaseException as error:
            told = _undo(clients, data)
            if isinstance(error, OSError):
                why = f"{data} cannot be written: {error.strerror or error}"
                raise ExhaustedError(f"{why}; {told}") from error
            if isinstance(error, UnavailableError | ForbiddenError | CorruptDataError):
                raise type(error)(f"{error}; {told}") from error
            with redis_side.translated(told):
                raise
    for client in clients:
        client.close()
    return found


@contextmanager
def _unused(data: Path) -> Iterator[None]:
    """Keeps learners from the data folder meanwhile."""
    data.mkdir(parents=True, exist_ok=True)
    with (data / folders.LEARNER_LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PreconditionError(
                f"a learner works in {data}; stop the stack first, or restore into another folder. Nothing was changed"
            ) from error
        yield


def _require_empty(clients: Sequence[Any], data: Path) -> None:
    full = [name for name in (*folders.FOLDERS, _STAGE) if _has_files(data / name)]
    if full:
        raise PreconditionError(
            f"{data} is not empty: it has {', '.join(full)}; restore into an empty folder, or move these away. "
            "Nothing was changed"
        )
    for client in clients:
        key = next(client.scan_iter(match=redis_side.PATTERN, count=1_000), None)
        if key is not None:
            raise PreconditionError(
                f"Redis is not empty: it has {key.decode(errors='replace')}; restore into one without keys newt:*. "
                "Nothing was changed"
            )


def _has_files(path: Path) -> bool:
    return path.is_file() or any(path.rglob("*"))


def _require_room(data: Path, found: Manifest) -> None:
    needed = found.size_bytes - sum(found.files[name].size_bytes for name in found.redis_files)
    free = shutil.disk_usage(data).free
    if needed > free:
        raise ExhaustedError(f"{data} has room for {free} bytes, the backup's files have {needed}; nothing was changed")


def verify(place: Place, found: Manifest) -> None:
    """Reads all files of a backup. Raises CorruptDataError for the first that is not as it was written."""
    for name in found.redis_files:
        if name not in found.files:
            raise CorruptDataError(f"{place}/{manifest.NAME} is damaged: it does not name {name}; take another backup")
    for name in found.files:
        try:
            _copy(place, found, name, None)
        except OSError as error:
            raise CorruptDataError(
                f"{place}/{name} cannot be read ({error.strerror}); nothing was restored: take another backup"
            ) from error
        except CorruptDataError as error:
            raise CorruptDataError(f"{error}; nothing was restored: take another backup") from error


def _copy(place: Place, found: Manifest, name: str, target: Sink | None) -> None:
    with place.open(name) as file:
        read, entry = folders.copy_bytes(file, target), found.files[name]
    if not read.is_same(entry):
        raise CorruptDataError(
            f"{place}/{name} is damaged: got {read.size_bytes} bytes with SHA-256 {read.sha256[:12]}, expected "
            f"{entry.size_bytes} with {entry.sha256[:12]}"
        )


def _copy_files(place: Place, found: Manifest, data: Path) -> None:
    """Beside the places where the learner looks for them."""
    (data / _STAGE).mkdir(exist_ok=True)
    stage = places.FolderPlace(data / _STAGE)
    for name, entry in found.files.items():
        if name not in found.redis_files:
            with stage.create(Path(name).relative_to(DATA).as_posix(), entry.mtime_ns) as out:
                _copy(place, found, name, out)


def _run_commands(client: Any, place: Place, name: str) -> None:
    pipe, waiting, size = client.pipeline(transaction=False), 0, 0
    with place.open(name) as file:
        for words in commands.read(file, f"{place}/{name}"):
            pipe.execute_command(*words)
            waiting, size = waiting + 1, size + sum(map(len, words))
            if waiting >= _BATCH_COMMANDS or size >= _BATCH_BYTES:
                pipe.execute()
                waiting = size = 0
    pipe.execute()


def _point_at(client: Any, found: Manifest, data: Path) -> None:
    """Runs' records name their folders, for people."""
    old, new = Path(found.data_dir), data.resolve()
    for run_id in client.zrange(redis_side.RUNS, 0, -1):
        key = redis_side.run_key(redis_side.text_of(run_id))
        directory = Path(redis_side.text_of(client.hget(key, "directory") or b""))
        if directory.is_relative_to(old):
            client.hset(key, "directory", str(new / directory.relative_to(old)))


def _undo(clients: Sequence[Any], data: Path) -> str:
    """Takes back what was written; both were empty. Returns what is left, in words."""
    for name in (*folders.FOLDERS, _STAGE):
        shutil.rmtree(data / name, ignore_errors=True)
    try:
        with redis_side.translated():
            for client in clients:
                for key in client.scan_iter(match=redis_side.PATTERN, count=1_000):
                    client.unlink(key)
    except UnavailableError:
        return "remove the keys newt:* from Redis before you try again"
    return "nothing of it is left"
