"""Frame stacking: the features of the last few frames as one vector, oldest first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class FeatureHistory:
    """Features of the last m frames of N instances. An episode's first frame stands in for those before it.

        history = FeatureHistory(rows=8, dim=768, frames=3)
        image = history.begin(range(8), first_features)   # float32[8, 2304]
        image = history.push(features)

    Args:
        rows: N.
        dim: X, width of one frame's features.
        frames: M.
    """

    def __init__(self, rows: int, dim: int, frames: int) -> None:
        self._last: Floats = np.zeros((rows, frames, dim), np.float32)

    def begin(self, rows: Sequence[int], features: Floats) -> Floats:
        """Starts episodes in some rows.

        Args:
            rows: N rows.
            features: float32[n, X] of their first frames.

        Returns:
            float32[N, m*X], of all rows.
        """
        self._last[list(rows)] = features[:, None]
        return self.now()

    def push(self, features: Floats) -> Floats:
        """Adds the newest frame of all rows, float32[N, X]; returns float32[N, m*X]."""
        self._last = np.concatenate([self._last[:, 1:], features[:, None]], 1)
        return self.now()

    def now(self) -> Floats:
        """float32[N, m*X]: a copy."""
        return self._last.reshape(len(self._last), -1).copy()


def stacked(features: Floats, frames: int) -> Floats:
    """The history of a whole episode: float32[T+1, m*X] of its frames' features float32[T+1, X]."""
    rows = np.arange(len(features))[:, None] + np.arange(1 - frames, 1)
    whole: Floats = features[rows.clip(0)].reshape(len(features), -1)
    return whole
