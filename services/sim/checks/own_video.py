"""A video of one episode of somebody's own task: `python -m services.sim.checks.own_video SOURCE --agent zero --out F`.

The last line of its output is JSON: `video`, `return`, `score` and `steps`, or `error`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from newt.errors import InvalidInputError
from newt.videos import Frame, frame_stride, write_mp4
from services.sim.checks.answering import answer
from services.sim.checks.own import actions
from services.sim.domains.own.adapter import OwnEnv
from services.sim.domains.own.sources import load


def record(source: str, task: str | None, agent: str, seed: int, out: Path) -> dict[str, Any]:
    """Plays and writes; returns what came out.

    Raises:
        NewtError: The source, the task or the expert is not there.
    """
    tasks = {own.name: own for own in load(source)}
    if task is not None and task not in tasks:
        raise InvalidInputError("--task", f"got {task!r}, expected one of {', '.join(tasks)}")
    own = tasks[task] if task is not None else next(iter(tasks.values()))
    if agent == "expert" and own.expert is None:
        raise InvalidInputError("--agent", f"{own.name} declares no expert; choose random or zero")
    env, stride, total = OwnEnv(own), frame_stride(own.episode_length), 0.0
    env.reset(seed)
    frames = [Frame(env.render(), 0, 0.0, float("nan"))]
    for step, action in enumerate(actions(env, agent, seed), start=1):
        result = env.step(action)
        total += result.reward
        ended = result.terminated or result.truncated
        if ended or step % stride == 0:
            frames.append(Frame(env.render(), step, total, result.success))
        if ended:
            break
    env.close()
    write_mp4(out, own.name, frames, own.episode_length)
    return {"video": str(out), "task": own.name, "return": total, "score": result.score, "steps": step}


def main() -> NoReturn:
    """Plays what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m services.sim.checks.own_video")
    parser.add_argument("source")
    parser.add_argument("--task")
    parser.add_argument("--agent", choices=["random", "zero", "expert"], default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    answer(lambda: record(options.source, options.task, options.agent, options.seed, options.out))


if __name__ == "__main__":
    main()
