"""Makes a backup of a deployment at work."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from newt import __version__
from newt.backup import folders, manifest, redis_side
from newt.backup.commands import CommandFile
from newt.backup.manifest import DATA, REDIS, FileEntry, Manifest
from newt.errors import AlreadyExistsError, ExhaustedError, InvalidInputError, NotFoundError, UnavailableError
from newt.runs.record import FINISHED

_NAME = "%Y%m%dT%H%M%SZ"
_FINISHED = {state.encode() for state in FINISHED}
_NAME_LENGTH = len("20260101T000000Z")


def make(folder: Path, redis_url: str, data: Path) -> Manifest:
    """Copies the learner's folders, then Redis, which is therefore never older than a run's newest checkpoint.

    So a restored run is like one after a crash: it goes back to that checkpoint, and replay holds what came since.
    A run or evaluation that ended while it was copied has its folder copied again, as nothing changes there any more.
    What was created after the beginning is left out.

    Args:
        folder: Folder to make; may exist if it is empty.
        redis_url: Address of Redis, with its password.
        data: The learner's data folder.

    Returns:
        What is in the backup.

    Raises:
        NotFoundError: There is no data folder.
        AlreadyExistsError: The folder has something in it.
        UnavailableError: Redis cannot be reached.
        ExhaustedError: The disk is full. As with every error, what was written is removed.
    """
    if not data.is_dir():
        raise NotFoundError(f"{data} is no folder; expected the learner's data folder (NEWT_LEARNER_DATA_DIR)")
    made = not folder.exists()
    _require_empty(folder)
    try:
        return _make(folder, redis_url, data)
    except BaseException as error:
        left = _remove(folder, itself=made)
        if isinstance(error, OSError):
            raise ExhaustedError(
                f"the backup to {folder} cannot be written: {error.strerror or error}; {left}"
            ) from error
        if isinstance(error, UnavailableError):
            raise UnavailableError(f"{error}; {left}") from error
        raise


def make_kept(folder: Path, keep: int, redis_url: str, data: Path) -> tuple[Path, Manifest]:
    """Makes a backup named after the time in a folder of backups, then removes all but the newest of them.

    Args:
        folder: Folder of backups.
        keep: Whole backups that stay, this one among them.
        redis_url: As in `make`.
        data: As in `make`.
    """
    if keep < 1:
        raise InvalidInputError("--keep", f"got {keep}, expected at least 1")
    path = folder / f"{datetime.now(UTC):{_NAME}}"
    done = make(path, redis_url, data)
    ours = sorted(p for p in folder.iterdir() if len(p.name) == _NAME_LENGTH and _is_time(p.name))
    whole = [p for p in ours if (p / manifest.NAME).is_file()]
    for old in ours:
        if len(whole) > keep and old < whole[-keep]:
            _remove(old, itself=True)
    return path, done


def _make(folder: Path, redis_url: str, data: Path) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    client = redis_side.connect(redis_url)
    files: dict[str, FileEntry] = {}

    def copy_folder(name: str) -> None:
        shutil.rmtree(folder / DATA / name, ignore_errors=True)
        for path in [path for path in files if path.startswith(f"{DATA}/{name}/")]:
            del files[path]
        copied = folders.copy_folder(data / name, folder / DATA / name)
        files.update({f"{DATA}/{name}/{path}": entry for path, entry in copied.items()})

    with redis_side.translated():
        client.ping()
        known = redis_side.Known.read(client)
    (folder / DATA).mkdir()
    copy_folder("checkpoints")
    copy_folder("demos")
    for kind, ids in (("runs", known.runs), ("evaluations", known.jobs["evaluations"])):
        for record_id in ids:
            copy_folder(f"{kind}/{record_id}")
    with CommandFile(folder / REDIS) as out, redis_side.translated():
        copied = redis_side.copy(client, known, out)
    client.close()
    files[REDIS] = out.entry
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
        runs=len(copied.lives),
        evaluations=len(copied.evaluations),
        buffers=copied.buffers,
        demo_sets=copied.demo_sets,
        episodes=copied.episodes,
        files=files,
    )
    manifest.write(folder, result)
    return result


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "a backup that was not finished" if (folder / DATA).is_dir() else "not an empty folder"
        if (folder / manifest.NAME).is_file():
            what = "a backup already"
        raise AlreadyExistsError(f"{folder} is {what}; choose another folder, or remove it")


def _remove(folder: Path, *, itself: bool) -> str:
    """Removes a backup, its manifest first; returns what is left of it, in words."""
    (folder / manifest.NAME).unlink(missing_ok=True)
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    if itself and folder.is_dir() and not os.listdir(folder):
        folder.rmdir()
    return (
        "nothing of it is left" if not folder.exists() or not os.listdir(folder) else f"remove what is left in {folder}"
    )


def _is_time(name: str) -> bool:
    try:
        datetime.strptime(name, _NAME)
    except ValueError:
        return False
    return True
