"""Small pictures of tasks: ours come with the package, others are drawn by their simulators, once."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
import structlog

from newt.client.sim import SimClient
from newt.errors import NewtError, NotFoundError, UnavailableError
from newt.tasks.pictures import has_picture, packaged_picture, tile
from newt.tasks.registry import Task
from services.learner.settings import LearnerSettings, start_sim

STEPS = 5
"""Random steps before the picture: some tasks begin with an empty screen."""
ACTION_COLUMNS = 16
CALL_TIMEOUT_S, BUILD_TIMEOUT_S = 20.0, 60.0
RETRY_S = 600.0
"""What could not be drawn is tried again after so long."""

log = structlog.get_logger(__name__)


class TaskPictures:
    """Finds the picture of a task, or has it drawn; one at a time.

    Args:
        settings: Where simulators are, and where drawn pictures are kept.
    """

    def __init__(self, settings: LearnerSettings) -> None:
        self._settings = settings
        self._drawing = threading.Lock()
        self._failed: dict[str, tuple[float, str]] = {}

    def at_hand(self, task: Task) -> bool:
        """Whether there is a picture now, without drawing."""
        return has_picture(task.name) or self._settings.folder.task_picture(_key(task)).is_file()

    def can_be_drawn(self, task: Task) -> bool:
        """Whether it is worth asking its simulator, if that can be reached."""
        return self._failure(task) is None

    def get(self, task: Task) -> bytes:
        """The picture, as WebP of newt.tasks.pictures.TILE_PX.

        Raises:
            NotFoundError: There is none, and it cannot be drawn.
            UnavailableError: Another is being drawn, or the simulator does not answer: ask again.
        """
        if has_picture(task.name):
            return packaged_picture(task.name)
        path = self._settings.folder.task_picture(_key(task))
        if path.is_file():
            return path.read_bytes()
        if (why := self._failure(task)) is not None:
            raise NotFoundError(f"no picture of {task.name}: {why}")
        if task.domain not in self._settings.sims:
            raise NotFoundError(f"no picture of {task.name}: {start_sim(task.domain)}")
        if not self._drawing.acquire(timeout=BUILD_TIMEOUT_S):
            raise UnavailableError("pictures of other tasks are being drawn; ask again")
        try:
            if path.is_file():
                return path.read_bytes()
            picture = self._draw(task)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(picture)
            partial.replace(path)
            return picture
        finally:
            self._drawing.release()

    def _draw(self, task: Task) -> bytes:
        address = self._settings.sims[task.domain]
        try:
            with (
                SimClient(address, CALL_TIMEOUT_S, BUILD_TIMEOUT_S, remedy=start_sim(task.domain)) as client,
                client.open([task.name], [0]) as session,
            ):
                session.reset(seeds=[0])
                draws = np.random.default_rng(0)
                for _ in range(min(STEPS, task.episode_length - 1)):
                    session.step(draws.uniform(-1, 1, (1, ACTION_COLUMNS)).astype(np.float32))
                return tile(session.render()[0])
        except UnavailableError:
            raise
        except NewtError as error:
            log.warning("picture_failed", task=task.name, error=str(error))
            self._failed[_key(task)] = (time.monotonic(), str(error))
            raise NotFoundError(f"no picture of {task.name}: {error}") from error

    def _failure(self, task: Task) -> str | None:
        when, why = self._failed.get(_key(task), (float("-inf"), ""))
        return why if time.monotonic() - when < RETRY_S else None


def _key(task: Task) -> str:
    """A name for a file, whatever a task is called; another one when its code is another."""
    return hashlib.sha256(f"{task.domain}\n{task.name}\n{task.digest}".encode()).hexdigest()[:32]
