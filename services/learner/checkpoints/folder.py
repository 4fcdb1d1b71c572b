"""The checkpoints in a run's folder.

Names tell the env steps with underscores for thousands: `0` is the agent right after pretraining, `25_000` after 25,000
steps; `pretraining-3_000` lies inside of pretraining. Files appear whole or not at all.

Torch is imported by what reads or writes tensors and not before: the REST API lists, names and removes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from newt.agent.checkpoint_header import CheckpointError
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.runs.base import now
from newt.runs.record import Checkpoint
from services.learner.checkpoints.files import read_any_header
from services.learner.checkpoints.scores import read_scores

if TYPE_CHECKING:
    from newt.agent.checkpoints import Checkpoint as AgentCheckpoint
    from newt.baselines.checkpoints import PolicyCheckpoint

T = TypeVar("T")

SUFFIX = ".safetensors"
NEWEST, BEST = "newest", "best"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

log = structlog.get_logger(__name__)


class CheckpointFolder:
    """Checkpoints of one run.

    Args:
        directory: The run's folder.
        keep: The newest checkpoints that stay when another is written, besides `0` and the best.
    """

    def __init__(self, directory: Path, keep: int = 10) -> None:
        self._directory, self._folder = directory, directory / "checkpoints"
        self._keep = keep

    def save(self, name: str, write: Callable[[Path], None]) -> Path:
        """Writes a checkpoint, replacing one of that name, and removes those too old to keep.

        Args:
            name: Name without suffix.
            write: Writes its file whole or not at all, as `copied_checkpoint` and `copied_policy` return it. The file's
                info must have `env_steps` and `updates`.

        Raises:
            OSError: The disk is full or not writable; older checkpoints are untouched.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}{SUFFIX}"
        write(path)
        removable = [item for item in self._whole() if item.name not in ("0", name) and not item.best]
        for old in removable[: max(0, len(removable) + 1 - self._keep)]:
            (self._folder / f"{old.name}{SUFFIX}").unlink(missing_ok=True)
        return path

    def list(self) -> list[Checkpoint]:
        """All checkpoints in the order of their updates; before them those that cannot be read, with the reason."""
        found = [_describe(path) for path in self._folder.glob(f"*{SUFFIX}")]
        scores = read_scores(self._directory)
        for checkpoint in found:
            known = scores.get(checkpoint.name)
            if known is not None and checkpoint.broken is None and known.updates == checkpoint.updates:
                checkpoint.score = known.score
        scored = [checkpoint for checkpoint in found if checkpoint.score is not None]
        if scored:
            max(scored, key=lambda checkpoint: (checkpoint.score, checkpoint.updates)).best = True
        return sorted(found, key=lambda checkpoint: (checkpoint.updates, checkpoint.created_at))

    def last(self) -> Checkpoint | None:
        """The newest that can be read."""
        whole = self._whole()
        return whole[-1] if whole else None

    def saved_at(self) -> datetime | None:
        """When the newest was written, readable or not; None if there is none."""
        times = [path.stat().st_mtime for path in self._folder.glob(f"*{SUFFIX}")]
        return datetime.fromtimestamp(max(times), UTC) if times else None

    def resolve(self, name: str) -> str:
        """The name of a checkpoint; NEWEST, or none at all, is that of the newest, BEST of the one that scored best.

        Raises:
            InvalidInputError: Not a checkpoint's name.
            NotFoundError: No such checkpoint, or none yet.
        """
        if name in ("", NEWEST):
            whole = self._whole()
            if not whole:
                raise NotFoundError(f"run {self._run} has no checkpoint yet")
            return whole[-1].name
        if name == BEST:
            best = next((checkpoint.name for checkpoint in self._whole() if checkpoint.best), None)
            if best is None:
                raise NotFoundError(
                    f"run {self._run} has no best checkpoint: none that is left was evaluated by the run"
                )
            return best
        self.path(name)
        return name

    def path(self, name: str) -> Path:
        """The file of a checkpoint. Raises as `resolve`."""
        if not _NAME.fullmatch(name):
            raise InvalidInputError(
                "checkpoint", f"got {name[:80]!r}, expected a name from GET /runs/{self._run}/checkpoints"
            )
        path = self._folder / f"{name}{SUFFIX}"
        if not path.is_file():
            names = ", ".join(checkpoint.name for checkpoint in self._whole()) or "none yet"
            raise NotFoundError(f"run {self._run} has no checkpoint {name!r}; there are: {names}")
        return path

    def remove(self, name: str) -> None:
        """Removes a checkpoint, whatever its file is. Raises NotFoundError."""
        remove_file(self._folder, name)

    def load(self, name: str) -> AgentCheckpoint:
        """Reads a checkpoint. Raises also CorruptDataError."""
        from newt.agent.checkpoints import load_checkpoint

        return self._load(name, load_checkpoint)

    def _load(self, name: str, load: Callable[[Path], T]) -> T:
        try:
            return load(self.path(name))
        except CheckpointError as error:
            raise CorruptDataError(str(error)) from error

    def newest(self) -> tuple[str, AgentCheckpoint] | None:
        """Name and content of the newest checkpoint that is intact, or None if there is none.

        A damaged one is passed over with a warning: the run goes back one interval instead of ending.
        """
        from newt.agent.checkpoints import load_checkpoint

        return self._newest(load_checkpoint)

    def newest_policy(self) -> tuple[str, PolicyCheckpoint] | None:
        """The same of an algorithm without a world model."""
        from newt.baselines.checkpoints import load_policy

        return self._newest(load_policy)

    def _newest(self, load: Callable[[Path], T]) -> tuple[str, T] | None:
        for checkpoint in reversed(self._whole()):
            try:
                return checkpoint.name, self._load(checkpoint.name, load)
            except CorruptDataError as error:
                log.error("checkpoint_damaged", checkpoint=checkpoint.name, error=str(error))
        return None

    @property
    def _run(self) -> str:
        return self._folder.parent.name

    def _whole(self) -> Sequence[Checkpoint]:
        return [checkpoint for checkpoint in self.list() if checkpoint.broken is None]


def shown_name(path: Path) -> str:
    """A file's name without its suffix, in characters that JSON has: anybody may have put it there."""
    return os.fsencode(path.name.removesuffix(SUFFIX)).decode("utf-8", "backslashreplace")


def remove_file(folder: Path, name: str) -> None:
    """Removes what a listing of a folder shows under a name. Raises NotFoundError."""
    found = [path for path in folder.glob(f"*{SUFFIX}") if shown_name(path) == name]
    if not found:
        raise NotFoundError(f"no checkpoint {name[:80]!r} is listed")
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def reason(error: Exception, path: Path) -> str:
    """Why a file cannot be used, without its place on this machine."""
    return str(error).replace(f"{path}: ", "").replace(str(path), "the file")[:500]


def _describe(path: Path) -> Checkpoint:
    """What a file says about itself; nothing in it keeps the others from being listed."""
    size, created, broken = 0, now(), None
    counts: dict[str, int] = {}
    try:
        stat = path.stat()
        size, created = stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)
        info = read_any_header(path).info
        missing = [name for name in ("env_steps", "updates") if info.get(name) is None]
        if missing:
            raise CheckpointError(f"{path}: info.{missing[0]}: expected a number, got none")
        counts = {name: info[name] for name in ("env_steps", "updates")}
    except (OSError, CheckpointError) as error:
        broken = reason(error, path)
        log.warning("checkpoint_unreadable", path=str(path), error=str(error))
    return Checkpoint(name=shown_name(path), size_bytes=size, created_at=created, broken=broken, **counts)


def name_of(env_steps: int, pretrain_updates_left: int, updates: int) -> str:
    """Name for the present state of a run."""
    return f"pretraining-{updates:_}" if pretrain_updates_left > 0 else f"{env_steps:_}"
