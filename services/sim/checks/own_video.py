"""A video of one episode of somebody's own task: `python -m services.sim.checks.own_video SOURCE --agent zero --out F`.

The last line of its output is JSON: `video`, `return`, `score` and `steps`, or `error`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from newt.errors import InvalidInputError
from newt.tasks.pace import DEFAULT_STEPS_PER_S
from newt.videos import Frame, frame_stride, write_mp4
from services.sim.checks.answering import answer
from services.sim.checks.own import actions
from services.sim.domains.own.adapter import OwnEnv
from services.sim.domains.own.sources import load

if TYPE_CHECKING:
    from newt.agent import Agent

_WINDOW = 672
UNTRAINED = ("random", "zero", "expert")


def record(source: str, task: str | None, agent: str, seed: int, out: Path, window: bool = False) -> dict[str, Any]:
    """Plays and writes, or shows in a window; returns what came out.

    Raises:
        NewtError: The source, the task, the expert or the agent's file is not there, or it does not know the task.
    """
    tasks = {own.name: own for own in load(source)}
    if task is not None and task not in tasks:
        raise InvalidInputError("--task", f"got {task!r}, expected one of {', '.join(tasks)}")
    own = tasks[task] if task is not None else next(iter(tasks.values()))
    if agent == "expert" and own.expert is None:
        raise InvalidInputError("--agent", f"{own.name} declares no expert; choose random or zero")
    trained = None if agent in UNTRAINED else _trained(agent, own.name, seed)
    env, stride, total = OwnEnv(own), frame_stride(own.episode_length), 0.0
    obs = env.reset(seed)
    chosen = actions(env, agent, seed)
    show = _window(own.name, env) if window else None
    frames = [Frame(env.render(), 0, 0.0, float("nan"))]
    for step in itertools.count(1):
        action = next(chosen) if trained is None else trained.act(obs, task=own.name)
        result = env.step(action)
        obs = result.obs
        total += result.reward
        ended = result.terminated or result.truncated
        if show is not None and not show(step, total):
            ended = True
        if ended or step % stride == 0:
            frames.append(Frame(env.render(), step, total, result.success))
        if ended:
            break
    env.close()
    if show is None:
        write_mp4(out, own.name, frames, own.episode_length, env.steps_per_s or DEFAULT_STEPS_PER_S)
    return {
        "video": "" if window else str(out),
        "task": own.name,
        "return": total,
        "score": result.score,
        "steps": step,
    }


def _window(name: str, env: OwnEnv) -> Callable[[int, float], bool]:
    """Opens a window; what is returned shows a step in it, in its time, and whether to go on."""
    from newt.miniarcade.play import open_window, pygame, show_picture  # pygame

    surface, clock = open_window(_WINDOW), pygame.time.Clock()
    steps_per_s = env.steps_per_s or DEFAULT_STEPS_PER_S

    def show(step: int, total: float) -> bool:
        show_picture(surface, env.render(), f"{name}: step {step}, return {total:.2f}; Escape ends")
        clock.tick(steps_per_s)
        events = pygame.event.get()
        return not any(
            event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE)
            for event in events
        )

    return show


def _trained(file: str, task: str, seed: int) -> Agent:
    import torch  # which the others need not wait for

    from newt.agent import Agent

    # A plan of one row is too small for threads that wait for each other, the more so beside the run's own processes.
    torch.set_num_threads(1)
    agent = Agent.load(file, seed=seed)
    if task not in agent.tasks:
        raise InvalidInputError("--agent", f"{file} was not trained on {task}; it knows {', '.join(agent.tasks)}")
    return agent


def main() -> NoReturn:
    """Plays what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m services.sim.checks.own_video")
    parser.add_argument("source")
    parser.add_argument("--task")
    parser.add_argument("--agent", default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--window", action="store_true")
    options = parser.parse_args()
    answer(lambda: record(options.source, options.task, options.agent, options.seed, options.out, options.window))


if __name__ == "__main__":
    main()
