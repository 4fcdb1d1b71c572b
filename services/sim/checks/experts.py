"""How good the scripted experts are: episodes of each, judged by the rule for demonstrations."""

from __future__ import annotations

import numpy as np

from newt.tasks.demo_rule import accepted
from newt.tasks.registry import Task
from newt.tasks.reports import ExpertReport
from services.sim import domains
from services.sim.domains.base import SimEnv


def check_expert(task: Task, episodes: int, seed: int = 0) -> ExpertReport:
    """Plays the expert of a task in this process.

    Args:
        task: It must have an expert.
        episodes: How many, at least one.
        seed: Seed of the first episode; the others have those that follow.
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
