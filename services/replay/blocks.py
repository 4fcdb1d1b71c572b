"""Memory for what comes and goes in the same order: large blocks, filled one behind the other."""

from __future__ import annotations

import itertools

import numpy as np

# More than malloc keeps for itself (newt.memory): a block goes back to the system whole. The system gives pages when
# they are written, so what is not filled yet costs nothing.
BLOCK_BYTES = 8 << 20
_numbers = itertools.count()


class Blocks:
    """Blocks of memory by number. Nothing in them ever moves. Not thread-safe: its owner holds a lock.

        blocks = Blocks()
        number, start = blocks.place(400)
        blocks.views[number][start : start + 400]   # 400 bytes that nobody else gets
        blocks.give_back(before=number)

    Attributes:
        views: Bytes of the blocks held, the oldest first. Numbers grow, and no two blocks of a process have the same.
        newest: Number of the block that is being filled; -1 before there is one.
    """

    def __init__(self) -> None:
        self.views: dict[int, memoryview] = {}
        self.newest = -1
        self._filled = 0

    def place(self, size_bytes: int) -> tuple[int, int]:
        """Number of a block, and where free bytes begin in it; a block of its own for what is larger than one."""
        if self.newest not in self.views or len(self.views[self.newest]) - self._filled < size_bytes:
            self.newest = next(_numbers)
            self.views[self.newest] = np.empty(max(size_bytes, BLOCK_BYTES), np.uint8).data
            self._filled = 0
        start = self._filled
        self._filled += size_bytes
        return self.newest, start

    def give_back(self, *, before: int) -> None:
        """Lets go of the blocks of lower numbers."""
        while self.views and (oldest := next(iter(self.views))) < before:
            del self.views[oldest]
