"""What a check of a task's simulator finds: told by the checking process, shown by the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TaskReport:
    """What was seen of a task that random actions played.

    Attributes:
        task: Its name.
        domain: Its domain.
        problems: What is wrong, in words; nothing if the task is as it should be.
        missing_asset: What to do about a missing file without which the task cannot be built; empty if there is none.
        obs_dim: Observed columns.
        action_dim: Columns of the actions, as registered: a simulator takes no others.
        length: Agent steps of the episode.
        episode_return: Sum of its rewards.
        score: Published score at the end.
        corrected_score: The score that reports use.
        step_ms: Wall milliseconds per agent step, without drawing.
        frames_ok: Whether frames are as they should be; None if none was drawn.
    """

    task: str
    domain: str
    problems: list[str] = field(default_factory=list)
    missing_asset: str = ""
    obs_dim: int = 0
    action_dim: int = 0
    length: int = 0
    episode_return: float = 0.0
    score: float = math.nan
    corrected_score: float = math.nan
    step_ms: float = math.nan
    frames_ok: bool | None = None

    @property
    def ok(self) -> bool:
        """Nothing is wrong and nothing is missing."""
        return not self.problems and not self.missing_asset


@dataclass(frozen=True)
class ExpertReport:
    """What a scripted expert brought.

    Attributes:
        episodes: Played.
        accepted: How many of them the rule lets pass as demonstrations.
        success_rate: Share of the episodes that ended in success; NaN where the task defines none.
        score: Mean of the scores that reports use, in [0, 1].
        lowest_score: Lowest score of an episode.
    """

    episodes: int
    accepted: int
    success_rate: float
    score: float
    lowest_score: float


@dataclass(frozen=True)
class Criterion:
    """One thing that a check of somebody's own task has looked at.

    Attributes:
        task: Name of the task; empty where none is known yet.
        name: What was looked at.
        outcome: `passed`, `failed` or `warning`.
        detail: What was seen.
        remedy: How to mend it; empty if nothing is to mend.
        required: Whether nobody can train on the task while this has failed.
    """

    task: str
    name: str
    outcome: Literal["passed", "failed", "warning"]
    detail: str
    remedy: str = ""
    required: bool = True
