"""Demonstrations from a trained agent: of the episodes that it plays, those that the accept rule lets pass.

For n demonstrations of a task the agent plays 2n episodes without exploration, of which the first n that the rule
accepts (newt.tasks.demo_rule) are kept. With fewer than n, none is (arXiv 2511.19584, demonstrations).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import structlog

from newt.runs.demos import AgentDemosRequest, DemoYield
from newt.tasks.demo_rule import accepted, must_succeed, threshold
from newt.tasks.registry import Task
from newt.wire.episodes import Behaviour, Episode
from services.learner.evaluating.plan import EvaluationPlan
from services.learner.evaluating.play import evaluate
from services.learner.playing.actor import Model
from services.learner.seeds import derive
from services.learner.worker.connections import Services

PLAYED_PER_DEMO = 2
# Their episodes are held in memory until they are judged.
TASKS_AT_ONCE = 8

log = structlog.get_logger(__name__)


def collect_from_agent(
    services: Services,
    model: Model,
    tasks: Sequence[Task],
    request: AgentDemosRequest,
    on_progress: Callable[[float], None] = lambda share: None,
) -> dict[str, DemoYield]:
    """Plays and fills the set.

    Args:
        services: Simulators, planner and replay.
        model: The agent, as the planners know it.
        tasks: Which tasks.
        request: What was asked for.
        on_progress: Called with the share of the work done, from several threads.

    Returns:
        What came out, by task.
    """
    yields: dict[str, DemoYield] = {}
    parts = _parts(tasks)
    steps = [sum(task.episode_length for task in part) for part in parts]
    for i, part in enumerate(parts):

        def part_progress(share: float, done: int = sum(steps[:i]), here: int = steps[i]) -> None:
            on_progress((done + share * here) / sum(steps))

        episodes = _play(services, model, part, request, part_progress)
        for task in part:
            kept, yields[task.name] = _judge(task, episodes[task.name], request.episodes)
            for episode in kept:
                _store(services, request.name, episode)
            log.info("demos_judged", task=task.name, **yields[task.name].model_dump(exclude_none=True))
    return yields


def _parts(tasks: Sequence[Task]) -> list[list[Task]]:
    parts = []
    for domain in dict.fromkeys(task.domain for task in tasks):
        group = [task for task in tasks if task.domain == domain]
        parts += [group[low : low + TASKS_AT_ONCE] for low in range(0, len(group), TASKS_AT_ONCE)]
    return parts


def _play(
    services: Services,
    model: Model,
    tasks: Sequence[Task],
    request: AgentDemosRequest,
    on_progress: Callable[[float], None],
) -> dict[str, list[Episode]]:
    """Episodes of each task in the order of their seeds."""
    found: dict[str, dict[int, Episode]] = {task.name: {} for task in tasks}
    lock = threading.Lock()

    def on_episode(index: int, episode: Episode) -> None:
        with lock:
            found[episode.task][index] = episode

    plan = EvaluationPlan(
        tasks=tasks,
        episodes=PLAYED_PER_DEMO * request.episodes,
        mode=request.mode,
        model=model,
        seed=derive("demos", request.seed),
        on_episode=on_episode,
    )
    evaluate(services, plan, on_progress)
    return {task: [by_index[index] for index in sorted(by_index)] for task, by_index in found.items()}


def _judge(task: Task, episodes: Sequence[Episode], wanted: int) -> tuple[list[Episode], DemoYield]:
    returns = [float(episode.reward.sum(dtype=np.float64)) for episode in episodes]
    good = accepted(task.name, returns, [episode.success for episode in episodes])
    count = int(good.sum())
    kept = [episode for episode, is_good in zip(episodes, good, strict=True) if is_good][:wanted]
    missing = None
    if count < wanted:
        kept = []
        also = " and end in success" if must_succeed(task.name) else ""
        missing = f"{count} of {len(episodes)} episodes exceed the return {threshold(returns):.2f}{also}"
    outcome = DemoYield(
        wanted=wanted,
        kept=len(kept),
        played=len(episodes),
        accepted=count,
        threshold=threshold(returns),
        missing=missing,
    )
    return kept, outcome


def _store(services: Services, demo_set: str, episode: Episode) -> None:
    demo = replace(episode, behaviour=Behaviour.EXPERT)
    services.replay.append(demo, demo_set=demo_set)
