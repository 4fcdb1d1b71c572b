"""How fast tasks are shown: in the time of their simulators. Videos, players and recordings ask here."""

from __future__ import annotations

from collections.abc import Iterable

from newt.tasks.registry import Task

DEFAULT_STEPS_PER_S = 25.0
"""For tasks that do not say, and for several that do not agree: in the middle of what ours say (2.5 to 62.5)."""
MIN_STEPS_PER_S, MAX_STEPS_PER_S = 0.1, 1_000.0
"""What a task may say."""


def real_time(tasks: Iterable[Task]) -> float:
    """Agent steps per second at which some tasks are seen as fast as they would happen.

    >>> from newt.tasks.registry import get_task
    >>> real_time([get_task("walker-walk")])
    20.0
    """
    said = {task.steps_per_s for task in tasks}
    return (said.pop() if len(said) == 1 else None) or DEFAULT_STEPS_PER_S
