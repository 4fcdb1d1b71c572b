"""A run's checkpoints, written beside its training."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from services.learner.checkpoints.folder import CheckpointFolder
from services.learner.records.writer import RunWriter
from services.learner.waiting import RunFailedError, loosely

log = structlog.get_logger(__name__)

Write = Callable[[Path], None]


class CheckpointSaver:
    """Writes checkpoints in another thread, one at a time and in order; the run's events name those that are written.

        with CheckpointSaver(folder, writer) as saver:
            saver.save("10_000", 500, lambda: copied_checkpoint(updater, info))
            ...  # other work; the training may go on
            saver.check()
            saver.wait()

    Leaving the block waits for the one that is being written. A checkpoint that cannot be written is told to whoever
    calls next. There is one copy of the state at most beside the state itself.

    Args:
        folder: Where they go.
        writer: Writer of the run's events.
    """

    def __init__(self, folder: CheckpointFolder, writer: RunWriter) -> None:
        self._folder, self._writer = folder, writer
        self._pending: Future[None] | None = None

    def save(self, name: str, updates: int, copy: Callable[[], Write]) -> None:
        """Waits until the last one is written, copies the state, and begins to write the copy.

        Args:
            name: Name of the checkpoint.
            updates: Updates that the state has seen.
            copy: Copies the state, and returns what writes the copy.

        Raises:
            RunFailedError: The last one could not be written.
        """
        self.wait()
        # A thread that ends with its work: OpenMP keeps threads for each that computes, which the updates would feel.
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending = thread.submit(self._write, name, updates, copy())
        thread.shutdown(wait=False)

    def check(self) -> None:
        """Raises RunFailedError if it is known that the last one could not be written; never waits."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last one is on the disk. Raises RunFailedError if it could not be written."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write(self, name: str, updates: int, write: Write) -> None:
        try:
            self._folder.save(name, write)
        except OSError as error:
            raise RunFailedError(
                f"cannot write checkpoint {name}: {error}; make room and resume the run, which goes on from the last "
                "checkpoint"
            ) from error
        message = f"checkpoint {name} after {updates} updates"
        loosely(lambda: self._writer.event("checkpoint", message, {"name": name}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except RunFailedError as failure:
            if error is None:
                raise
            log.error("checkpoint_not_written", error=str(failure))  # what ended the block is the cause to be told
