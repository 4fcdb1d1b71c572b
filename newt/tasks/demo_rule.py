"""Which episodes of a task may become demonstrations (arXiv 2511.19584, demonstrations).

Those whose return exceeds a threshold below the median, if they also end in success where success is what the task is
about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Manipulation tasks, apart from the locomotion and balancing tasks that ManiSkill has as well.
MUST_SUCCEED = ("mw-", "rd-", "ms-")
NEED_NOT_SUCCEED = ("ms-cartpole", "ms-hopper", "ms-ant")


def threshold(returns: Sequence[float]) -> float:
    """Return that an accepted episode must exceed: 0.75 times the median, 1.25 times where the median is not positive.

    The median of an even number of returns is the lower one of the two in the middle.
    """
    median = sorted(returns)[(len(returns) - 1) // 2]
    return 0.75 * median if median > 0 else 1.25 * median


def must_succeed(task: str) -> bool:
    """Whether a demonstration of the task has to end in success."""
    return task.startswith(MUST_SUCCEED) and not task.startswith(NEED_NOT_SUCCEED)


def good_so_far(returns: Sequence[float], score: float, success: float) -> bool:
    """Whether an expert's newest episode may become a demonstration, while later ones are not known yet.

    It must end in success. Where success is not defined, its score must lie above 0 and its return not below the
    threshold. A return that equals the threshold passes, unlike in `accepted`: where a perfect episode brings 0, none
    exceeds it.

    Args:
        returns: Returns of the task's episodes so far, the newest one last; at least that one.
        score: Score of the newest episode, corrected.
        success: Success at its last step; NaN where undefined.
    """
    if math.isnan(success):
        return score > 0 and returns[-1] >= threshold(returns)
    return success == 1


def accepted(task: str, returns: Sequence[float], successes: Sequence[float]) -> npt.NDArray[np.bool_]:
    """The accept rule.

    Args:
        task: Name.
        returns: Returns of the episodes, at least one.
        successes: Successes at their last steps; NaN where undefined.

    Returns:
        bool[N], which episodes may become demonstrations.
    """
    good = np.asarray(returns, np.float64) > threshold(returns)
    if must_succeed(task):
        good &= np.asarray(successes) == 1
    return good
