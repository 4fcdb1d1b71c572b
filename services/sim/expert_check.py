"""How good the scripted experts are: episodes of each, judged by the rule for demonstrations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from newt.tasks.demo_rule import accepted
from newt.tasks.domains import DOMAINS
from newt.tasks.registry import Task
from services.sim import domains
from services.sim.domains.base import SimEnv


@dataclass(frozen=True)
class ExpertReport:
    """What an expert brought.

    Attributes:
        episodes: Played.
        accepted: How many of them the rule lets pass as demonstrations.
        success_rate: Share of the episodes that ended in success; NaN where the task defines none.
        score: Mean of the scores that reports use, in [0, 1].
        lowest_score: Of an episode.
    """

    episodes: int
    accepted: int
    success_rate: float
    score: float
    lowest_score: float


def check_expert(task: Task, episodes: int, seed: int = 0) -> ExpertReport:
    """Plays the expert of a task in this process.

    Args:
        task: It must have an expert.
        episodes: How many, at least one.
        seed: Of the first episode; the others have those that follow.
    """
    env = domains.make(task.domain, task.name, rendering=False)
    try:
        outcomes = [_play(env, seed + number) for number in range(episodes)]
    finally:
        env.close()
    returns, successes, scores = zip(*outcomes, strict=True)
    return ExpertReport(
        episodes=episodes,
        accepted=int(accepted(task.name, returns, successes).sum()),
        success_rate=float(np.mean(successes)),
        score=float(np.mean(scores)),
        lowest_score=min(scores),
    )


def _play(env: SimEnv, seed: int) -> tuple[float, float, float]:
    """Return, success at the end and score of an episode."""
    env.reset(seed)
    episode_return = 0.0
    while True:
        result = env.step(env.expert_action())
        episode_return += result.reward
        if result.terminated or result.truncated:
            score = result.score if env.corrected_score is None else env.corrected_score
            return episode_return, result.success, score


def page(tasks: Sequence[Task], reports: dict[str, ExpertReport]) -> str:
    """The Markdown page with a table for every domain.

    Args:
        tasks: With experts, in the order wanted.
        reports: By task name.
    """
    lines = [
        "# Scripted experts",
        "",
        "Tasks with an expert of a few lines, whose episodes can become demonstrations (`newt demos scripted`, or",
        "`demos.scripted_episodes` of a run). Written by `newt tasks experts --page docs/experts.md`, with",
        "consecutive seeds. *Accepted* are the episodes that the rule for demonstrations lets pass",
        "(newt/tasks/demo_rule.py): a return above 0.75 of the median, or above 1.25 of it if it is not positive, and",
        "success at the last step in Meta-World. A perfect `pygame-coconut-dodge` has the return 0 and so exceeds no",
        "threshold; `newt demos scripted` keeps it, as it keeps all successes of tasks that define success.",
        "*Success* is the share of episodes that end in success, where the task defines it. *Score* is the mean of the",
        "scores that reports use, normalised to [0, 1]; *lowest* that of the worst episode.",
    ]
    for domain in dict.fromkeys(task.domain for task in tasks):
        lines += ["", f"## {DOMAINS[domain].title}", "", "| Task | Episodes | Accepted | Success | Score | Lowest |"]
        lines += ["|---|---|---|---|---|---|"]
        for task in tasks:
            if task.domain == domain:
                lines.append(_row(task.name, reports[task.name]))
    return "\n".join(lines) + "\n"


def _row(name: str, report: ExpertReport) -> str:
    success = "-" if math.isnan(report.success_rate) else f"{report.success_rate:.0%}"
    scores = f"{report.score:.3f} | {report.lowest_score:.3f}"
    return f"| {name} | {report.episodes} | {report.accepted} | {success} | {scores} |"
