"""Outcomes of training episodes between two reports, as a run's metrics have them."""

from __future__ import annotations

import math


class Outcomes:
    """What episodes that have just ended came to. Whoever shares it between threads locks."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def note(self, task: str, *, reward: float, score: float, success: float, length: int) -> None:
        """An episode has ended.

        Args:
            task: Name of its task.
            reward: Its return.
            score: Its score.
            success: Its success; NaN where the task defines none.
            length: Its env steps.
        """
        for name, value in (("return", reward), ("score", score), ("success", success), ("length", length)):
            if not math.isnan(value):
                self._values.setdefault(f"{name}/{task}", []).append(float(value))

    def take(self, episodes: int) -> dict[str, float]:
        """Means over the episodes since the last call: `return/TASK`, `score/TASK`, `success/TASK`, `length/TASK`.

        Args:
            episodes: How many the run has by now, all tasks together: `episodes`, beside means only.
        """
        values, self._values = self._values, {}
        means = {name: sum(found) / len(found) for name, found in values.items()}
        return means | {"episodes": float(episodes)} if means else {}
