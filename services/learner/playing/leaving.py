"""Leaving a simulator that drains: every row ends its episode there, and waits for the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


class Leaving:
    """Which of N rows of a session have nothing more to do there.

    A simulator that drains waits for the episodes under way. Rows whose episode has ended are stepped on with the
    others, as a session steps all its rows, but what they do counts for nothing. When all are gone, the session is
    given back, and the work goes on in another one, at another replica or at the successor.

    Args:
        rows: N.

    Attributes:
        gone: bool[N], whose episode has ended since the simulator drains.
    """

    def __init__(self, rows: int) -> None:
        self.gone: Bools = np.zeros(rows, np.bool_)

    def saw(self, draining: bool, ended: Bools) -> None:
        """Notes a step.

        Args:
            draining: What it says of the simulator.
            ended: bool[N], rows whose episode it has ended, be it by a crash.
        """
        if draining:
            self.gone = self.gone | ended

    @property
    def present(self) -> Bools:
        """bool[N], whose steps count."""
        return ~self.gone

    @property
    def over(self) -> bool:
        """Whether all are gone."""
        return bool(self.gone.all())
