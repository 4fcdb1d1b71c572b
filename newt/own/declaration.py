"""The declaration of a task of your own, beside its Gymnasium environment.

    from newt.own import OwnTask, Returns

    TASK = OwnTask(
        name="my-reacher",
        make=MyReacher,  # a gymnasium.Env, or a function that makes one
        embodiment="An arm with two joints. The actions are the torques of shoulder and elbow.",
        goal="Move the tip to the red point.",
        episode_length=100,
        score=Returns(worst=-100, best=0),
    )

This module needs the standard library alone: what it declares is read in the
simulator service, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from newt.errors import InvalidInputError

ENTRY_POINTS = "newt.tasks"
"""Group of entry points by which installed packages announce their tasks."""
MAX_TEXT = 1000
"""Most characters of embodiment and goal together: the text encoder reads 512 tokens."""
MAX_EPISODE_LENGTH = 100_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a task may be called: names are parts of keys, files and commands."""


@dataclass(frozen=True)
class Success:
    """The score is 1 if the last step was a success, else 0.

    Attributes:
        key: Entry of `info` that says so, after every step.
    """

    key: str = "success"

    def __str__(self) -> str:
        return f"success of the last step (info[{self.key!r}])"


@dataclass(frozen=True)
class Returns:
    """The score is the sum of rewards, from `worst` (0) to `best` (1), and clipped to it.

    Raises:
        InvalidInputError: `best` is not above `worst`.
    """

    worst: float
    best: float

    def __post_init__(self) -> None:
        if not self.worst < self.best:
            raise InvalidInputError("score", f"got worst {self.worst} and best {self.best}, expected worst < best")

    def __str__(self) -> str:
        return f"sum of rewards, from {self.worst:g} to {self.best:g}"


@dataclass(frozen=True, kw_only=True)
class OwnTask:
    """What Newt must know of an environment that the environment does not say.

    Attributes:
        name: 1 to 64 of A-Z a-z 0-9 . _ -, unlike that of any other task.
        make: Makes the environment; called with `render_mode="rgb_array"` if it takes that.
        goal: What to do, in a sentence or two: the agent reads it.
        embodiment: What the body is, and what each action does; the agent reads it before the goal.
        episode_length: Steps after which an episode is cut off.
        score: How good an episode was, in [0, 1], for tables and curves: `Success` or `Returns`. None: always 0.
        discount: γ per step in (0, 1]; None: by the length of the episode, 0.95 to 0.995.
        expert: `expert(env, observation)` returns a good action, as the environment takes it; None: there is none.
        requirements: Distributions that the environment needs, as pip takes them.

    Raises:
        InvalidInputError: A fact makes no sense; names it.
    """

    name: str
    make: Callable[..., Any] = field(repr=False)
    goal: str
    episode_length: int
    embodiment: str = ""
    score: Success | Returns | None = None
    discount: float | None = None
    expert: Callable[[Any, Any], Any] | None = field(default=None, repr=False)
    requirements: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise InvalidInputError("name", f"got {self.name!r}, expected 1 to 64 of A-Z a-z 0-9 . _ -")
        if not callable(self.make):
            raise InvalidInputError("make", f"got {self.make!r}, expected an environment's class or a function")
        for name in ("goal", "embodiment"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInputError(name, f"got {getattr(self, name)!r}, expected a text")
        if not self.goal.strip():
            raise InvalidInputError("goal", "got a blank text, expected what the agent is to do")
        length = len(self.embodiment) + len(self.goal)
        if length > MAX_TEXT:
            raise InvalidInputError("goal", f"{length} characters with the embodiment; agents read at most {MAX_TEXT}")
        if type(self.episode_length) is not int or not 1 <= self.episode_length <= MAX_EPISODE_LENGTH:
            raise InvalidInputError(
                "episode_length",
                f"got {self.episode_length!r}, expected a number of steps from 1 to {MAX_EPISODE_LENGTH}",
            )
        if self.score is not None and not isinstance(self.score, Success | Returns):
            raise InvalidInputError("score", f"got {self.score!r}, expected Success(), Returns(worst, best) or None")
        if self.discount is not None and not 0 < self.discount <= 1:
            raise InvalidInputError("discount", f"got {self.discount!r}, expected a number in (0, 1]")
        if self.expert is not None and not callable(self.expert):
            raise InvalidInputError(
                "expert", f"got {self.expert!r}, expected a function of environment and observation"
            )
        if isinstance(self.requirements, str):
            raise InvalidInputError("requirements", f"got {self.requirements!r}, expected a list of them")
