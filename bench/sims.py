"""Vectors of 16 simulators: RemoteVectorEnv against gymnasium's AsyncVectorEnv."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from bench import processes
from bench.baselines.async_envs import async_envs
from bench.figures import Figure
from bench.measure import Effort, rate_ratio
from bench.vectors import random_actions, seconds_of_both
from newt.client import RemoteVectorEnv

# Domain, task and goal; `noop` is as wide as walker-walk and computes nothing, so only the way there and back counts.
CASES = (("dmcontrol", "walker-walk", 1.5), ("noop", "noop", 3.0))
OBS_DIM, ACTION_DIM = 24, 6


def run(effort: Effort) -> Iterator[Figure]:
    """Both tasks on one service with its default number of workers."""
    count = effort.pick(full=16, quick=16, tiny=2)
    with processes.service("services.sim", "newt.v1.SimService", {"DOMAINS": "dmcontrol,noop"}) as address:
        for domain, task, goal in CASES:
            steps = effort.pick(full=100, quick=50, tiny=5) * (4 if domain == "noop" else 1)
            with (
                closing(RemoteVectorEnv(task, count, address=address)) as remote,
                closing(async_envs(domain, task, OBS_DIM, ACTION_DIM, count)) as plain,
            ):
                seconds = seconds_of_both(remote, plain, random_actions(steps, count, ACTION_DIM), effort)
            yield rate_ratio(
                f"sims.{task}.n{count}",
                f"{count} instances of {task}; plain: AsyncVectorEnv, a process each",
                "env steps/s",
                steps * count,
                seconds["ours"],
                seconds["plain"],
                at_least=goal,
            )
