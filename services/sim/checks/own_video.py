"""A video of one episode of somebody's own task: `python -m services.sim.checks.own_video SOURCE --agent zero --out F`.

The last line of its output is JSON: `video`, `return`, `score` and `steps`, or `error`.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from newt.errors import InvalidInputError
from newt.videos import Frame, frame_stride, write_mp4
from services.sim.checks.answering import answer
from services.sim.checks.own import actions
from services.sim.domains.own.adapter import OwnEnv
from services.sim.domains.own.sources import load

if TYPE_CHECKING:
    from newt.agent import Agent

UNTRAINED = ("random", "zero", "expert")


def record(source: str, task: str | None, agent: str, seed: int, out: Path) -> dict[str, Any]:
    """Plays and writes; returns what came out.

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
    frames = [Frame(env.render(), 0, 0.0, float("nan"))]
    for step in itertools.count(1):
        action = next(chosen) if trained is None else trained.act(obs, task=own.name)
        result = env.step(action)
        obs = result.obs
        total += result.reward
        ended = result.terminated or result.truncated
        if ended or step % stride == 0:
            frames.append(Frame(env.render(), step, total, result.success))
        if ended:
            break
    env.close()
    write_mp4(out, own.name, frames, own.episode_length)
    return {"video": str(out), "task": own.name, "return": total, "score": result.score, "steps": step}


def _trained(file: str, task: str, seed: int) -> Agent:
    from newt.agent import Agent  # torch, which the others need not wait for

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
    options = parser.parse_args()
    answer(lambda: record(options.source, options.task, options.agent, options.seed, options.out))


if __name__ == "__main__":
    main()
