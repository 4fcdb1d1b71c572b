"""Makes a backup of a deployment at work."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from newt import __version__
from newt.backup import folders, manifest, places, redis_side
from newt.backup.commands import CommandFile
from newt.backup.manifest import DATA, REDIS, SHARDS, FileEntry, Manifest
from newt.backup.places import Place
from newt.errors import (
    AlreadyExistsError,
    ExhaustedError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from newt.runs.record import FINISHED

_NAME = "%Y%m%dT%H%M%SZ"
_FINISHED = {state.encode() for state in FINISHED}
_NAME_LENGTH = len("20260101T000000Z")


def make(target: str | Path, redis_urls: Sequence[str], data: Path) -> Manifest:
    """Copies the learner's folders, then Redis, which is therefore never older than a run's newest checkpoint.

    So a restored run is like one after a crash: it goes back to that checkpoint, and replay holds what came since.
    A run or evaluation that ended while it was copied has its folder copied again, as nothing changes there any more.
    What was created after the beginning is left out.

    Args:
        target: Folder to make, or s3://BUCKET/PATH; may exist if it is empty.
        redis_urls: Address of Redis, with its password. Where several replay services share runs' tasks, the address of
            each one's Redis, in the order of NEWT_LEARNER_REPLAY.
        data: The learner's data folder.

    Returns:
        What is in the backup.

    Raises:
        NotFoundError: There is no data folder.
        AlreadyExistsError: The target has something in it.
        InvalidInputError: The target makes no sense, or buffers are spread over other replay services than these.
        UnavailableError: Redis or the bucket's storage cannot be reached.
        ForbiddenError: The storage refuses the keys that it is given.
        ExhaustedError: The disk is full. As with every error, what was written is removed.
    """
    if not data.is_dir():
        raise NotFoundError(f"{data} is no folder; expected the learner's data folder (NEWT_LEARNER_DATA_DIR)")
    place = places.at(target)
    made = not Path(target).exists()
    _require_empty(place)
    try:
        return _make(place, redis_urls, data)
    except BaseException as error:
        left = _remove(place, itself=made)
        if isinstance(error, OSError):
            raise ExhaustedError(
                f"the backup to {place} cannot be written: {error.strerror or error}; {left}"
            ) from error
        if isinstance(error, UnavailableError | ForbiddenError):
            raise type(error)(f"{error}; {left}") from error
        raise


def make_kept(target: str | Path, keep: int, redis_urls: Sequence[str], data: Path) -> tuple[str, Manifest]:
    """Makes a backup named after the time in a folder of backups, then removes all but the newest of them.

    Args:
        target: Folder of backups, or s3://BUCKET/PATH.
        keep: Whole backups that stay, this one among them.
        redis_urls: As in `make`.
        data: As in `make`.

    Returns:
        Where it is, and what is in it.
    """
    if keep < 1:
        raise InvalidInputError("--keep", f"got {keep}, expected at least 1")
    parent = places.at(target)
    name = f"{datetime.now(UTC):{_NAME}}"
    done = make(f"{target}/{name}" if isinstance(target, str) else target / name, redis_urls, data)
    ours = [name for name in parent.entries() or () if len(name) == _NAME_LENGTH and _is_time(name)]
    whole = [name for name in ours if parent.child(name).has(manifest.NAME)]
    for old in ours:
        if len(whole) > keep and old < whole[-keep]:
            _remove(parent.child(old), itself=True)
    return str(parent.child(name)), done


def _make(place: Place, redis_urls: Sequence[str], data: Path) -> Manifest:
    clients = [redis_side.connect(url) for url in redis_urls]
    files: dict[str, FileEntry] = {}

    def copy_folder(name: str) -> None:
        inside = f"{DATA}/{name}"
        place.clear(inside)
        for path in [path for path in files if path.startswith(f"{inside}/")]:
            del files[path]
        files.update(folders.copy_folder(data / name, place, inside))

    with redis_side.translated():
        redis_side.require_all(clients)
        known = redis_side.Known.read(clients[0])
    copy_folder("checkpoints")
    copy_folder("demos")
    for kind, ids in (("runs", known.runs), ("evaluations", known.jobs["evaluations"])):
        for record_id in ids:
            copy_folder(f"{kind}/{record_id}")
    with ExitStack() as stack, redis_side.translated():
        names = [manifest.redis_file(shard) for shard in range(len(clients))]
        shards = [
            redis_side.Shard(client, CommandFile(stack.enter_context(place.create(name))))
            for client, name in zip(clients, names, strict=True)
        ]
        copied = redis_side.copy(shards, known)
    for client in clients:
        client.close()
    files.update({name: shard.out.entry for name, shard in zip(names, shards, strict=True)})
    for run_id, before in known.lives.items():
        life = copied.lives.get(run_id)  # of one that was deleted meanwhile, nothing is left to be copied
        if life is None or (life != before and life.state in _FINISHED):
            copy_folder(f"runs/{run_id}")
    for job_id, text in known.jobs["evaluations"].items():
        if copied.evaluations.get(job_id) != text:
            copy_folder(f"evaluations/{job_id}")
    result = Manifest(
        newt_version=__version__,
        created_at=datetime.now(UTC),
        data_dir=str(data.resolve()),
        shards=len(clients),
        runs=len(copied.lives),
        evaluations=len(copied.evaluations),
        buffers=copied.buffers,
        demo_sets=copied.demo_sets,
        episodes=copied.episodes,
        files=files,
    )
    manifest.write(place, result)
    return result


def _require_empty(place: Place) -> None:
    entries = place.entries()
    if entries == []:
        return
    what = "a backup that was not finished" if DATA in (entries or ()) else "not an empty folder"
    if manifest.NAME in (entries or ()):
        what = "a backup already"
    raise AlreadyExistsError(f"{place} is {what}; choose another place, or remove it")


def _remove(place: Place, *, itself: bool) -> str:
    """Removes a backup, its manifest first; returns what is left of it, in words."""
    gone = place.remove((manifest.NAME, REDIS, f"{manifest.NAME}.partial", SHARDS, DATA), itself=itself)
    return "nothing of it is left" if gone else f"remove what is left in {place}"


def _is_time(name: str) -> bool:
    try:
        datetime.strptime(name, _NAME)
    except ValueError:
        return False
    return True
