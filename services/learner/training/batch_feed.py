"""Training batches that survive an absence of the replay service, for a loop that never blocks for long."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from newt.client.read_ahead import Batch, ReadAhead
from newt.errors import UnavailableError


class BatchFeed:
    """The batches of one phase, in order.

    Args:
        open_at: Opens an iterator that starts with the batch of an index.
        first_index: Index of the first batch.
    """

    def __init__(self, open_at: Callable[[int], ReadAhead], first_index: int) -> None:
        self._open_at = open_at
        self._next = first_index
        self._batches: ReadAhead | None = None
        self.waiting_on: str | None = None

    def take(self, timeout_s: float) -> Batch | None:
        """The next batch, or None if it is not there in time: the limiter holds it, or replay is away.

        `waiting_on` says which: it names the replay service while that is away, also if batches go on without it.
        """
        if self._batches is None:
            self._batches = self._open_at(self._next)
        try:
            batch = self._batches.take(timeout_s)
        except UnavailableError as error:
            self.waiting_on = str(error)
            self._close()
            return None
        if batch is not None:
            self._next = batch.index + 1
            self.waiting_on = self._batches.left_out
        return batch

    def _close(self) -> None:
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
