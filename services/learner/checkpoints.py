"""The checkpoints in a run's folder.

Names tell the env steps with underscores for thousands: `0` is the agent right after pretraining, `25_000` after 25,000
steps; `pretraining-3_000` lies inside of pretraining. Files appear whole or not at all.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from newt.agent.checkpoints import Checkpoint as AgentCheckpoint
from newt.agent.checkpoints import CheckpointError, load_checkpoint, read_header, save_checkpoint
from newt.agent.learner import Learner
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError
from newt.runs.record import Checkpoint

SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

log = structlog.get_logger(__name__)


class CheckpointFolder:
    """Checkpoints of one run.

    Args:
        directory: The run's folder.
        keep: The newest checkpoints that stay when another is written, besides `0`.
    """

    def __init__(self, directory: Path, keep: int = 10) -> None:
        self._folder = directory / "checkpoints"
        self._keep = keep

    def save(self, name: str, learner: Learner, info: dict[str, Any]) -> Path:
        """Writes a checkpoint, replacing one of that name, and removes those too old to keep.

        Args:
            name: Name without suffix.
            learner: Whose whole state is stored.
            info: Counters and settings to store beside it; `env_steps` is required.

        Raises:
            OSError: The disk is full or not writable; older checkpoints are untouched.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}{SUFFIX}"
        save_checkpoint(path, learner, {**info, "updates": learner.updates})
        removable = [checkpoint for checkpoint in self.list() if checkpoint.name not in ("0", name)]
        for old in removable[: max(0, len(removable) + 1 - self._keep)]:
            (self._folder / f"{old.name}{SUFFIX}").unlink(missing_ok=True)
        return path

    def list(self) -> list[Checkpoint]:
        """All readable checkpoints, in the order of their updates."""
        found = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                info = read_header(path).info
                stat = path.stat()
                found.append(
                    Checkpoint(
                        name=path.name.removesuffix(SUFFIX),
                        size_bytes=stat.st_size,
                        env_steps=int(info["env_steps"]),
                        updates=int(info["updates"]),
                        created_at=datetime.fromtimestamp(stat.st_mtime, UTC),
                    )
                )
            except (OSError, KeyError, ValueError, TypeError) as error:
                log.warning("checkpoint_unreadable", path=str(path), error=str(error))
        return sorted(found, key=lambda checkpoint: (checkpoint.updates, checkpoint.created_at))

    def path(self, name: str) -> Path:
        """The file of a checkpoint.

        Raises:
            InvalidInputError: Not a checkpoint's name.
            NotFoundError: No such checkpoint.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError("checkpoint", f"got {name!r}, expected a name from GET /runs/<id>/checkpoints")
        path = self._folder / f"{name}{SUFFIX}"
        if not path.is_file():
            names = ", ".join(checkpoint.name for checkpoint in self.list()) or "none yet"
            raise NotFoundError(f"no checkpoint {name!r}; there are: {names}")
        return path

    def load(self, name: str) -> AgentCheckpoint:
        """Reads a checkpoint. Raises also CorruptDataError."""
        try:
            return load_checkpoint(self.path(name))
        except CheckpointError as error:
            raise CorruptDataError(str(error)) from error

    def newest(self) -> tuple[str, AgentCheckpoint] | None:
        """Name and content of the newest checkpoint that is intact, or None if there is none.

        A damaged one is passed over with a warning: the run goes back one interval instead of ending.
        """
        for checkpoint in reversed(self.list()):
            try:
                return checkpoint.name, self.load(checkpoint.name)
            except CorruptDataError as error:
                log.error("checkpoint_damaged", checkpoint=checkpoint.name, error=str(error))
        return None


def name_of(env_steps: int, pretrain_updates_left: int, updates: int) -> str:
    """Name for the present state of a run."""
    return f"pretraining-{updates:_}" if pretrain_updates_left > 0 else f"{env_steps:_}"
