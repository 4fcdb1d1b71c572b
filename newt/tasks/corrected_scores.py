"""The tasks whose published score cannot tell a good agent from a bad one, and the score reported instead.

`score` is always the published number, so that results stay comparable with the literature. Where that number cannot
leave 0, cannot reach 1 or pays for the wrong thing, the simulator computes a `corrected_score` beside it, and reports
(mean scores, curves, tables) use that one. Every other task's corrected score is its score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class CorrectedScore:
    """Why a task's published score is not what reports show, and what is.

    Attributes:
        published: The published score, with R for the return so far.
        flaw: What is wrong with it.
        corrected: The corrected score; both are in [0, 1].
    """

    published: str
    flaw: str
    corrected: str


_ANT = CorrectedScore("success", "the task defines no success: always 0", "R / 1000, one per control step at best")
_HOPPER = CorrectedScore("R / 600", "the 500 control steps pay at most 1 each: never above 0.833", "R / 500")

CORRECTED_SCORES: Mapping[str, CorrectedScore] = MappingProxyType(
    {
        "cup-spin": CorrectedScore(
            "R / 1000",
            "a third is paid for a distance that the string does not allow: never above 0.905",
            "score / 0.905, at most 1",
        ),
        "lunarlander-land": CorrectedScore(
            "R / 500",
            "rewards add up to less than 250, and a wreck at rest is paid like a landing: doing nothing beats trying",
            "(R - pay for resting as a wreck) / 200, within 0 and 1",
        ),
        "ms-ant-walk": _ANT,
        "ms-ant-run": _ANT,
        "ms-hopper-stand": _HOPPER,
        "ms-hopper-hop": _HOPPER,
    }
)
"""By task name."""
