"""What one must know of an agent to act with it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from newt.acting.plans import ActMode
from newt.errors import InvalidInputError
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM


@dataclass(frozen=True)
class AgentFacts:
    """An agent's tasks, and what goes in and comes out.

    Attributes:
        tasks: Names, in the order of its task table.
        action_dims: Valid columns of each task's action.
        obs_dims: Valid columns of each task's observation; 0 where nobody knows.
        image_dim: X, columns of image features; 0 without images.
        mode: How training acted with it.
        plans: Whether it has a world model to plan with.
        obs_width: O, columns that observations are padded to.
        action_width: A, columns that actions are padded to.
    """

    tasks: tuple[str, ...]
    action_dims: tuple[int, ...]
    obs_dims: tuple[int, ...]
    image_dim: int = 0
    mode: ActMode = "planner"
    plans: bool = True
    obs_width: int = PADDED_OBS_DIM
    action_width: int = PADDED_ACTION_DIM

    def index(self, task: str) -> int:
        """Row of a task.

        Raises:
            InvalidInputError: The agent does not know it; names those that it knows.
        """
        try:
            return self.tasks.index(task)
        except ValueError:
            close = difflib.get_close_matches(task, self.tasks, n=3) if isinstance(task, str) else []
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise InvalidInputError(
                "task", f"got {task!r}, expected a task of this agent: {listed(self.tasks)}{hint}"
            ) from None


def listed(names: Sequence[str], most: int = 10) -> str:
    """Some names for people."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
