"""The ten domains, states only: speed per core and memory per instance, in process and through the service."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from bench import processes
from bench.baselines.async_envs import async_envs
from bench.baselines.one_process import measure, single_threaded
from bench.figures import Figure, Spread, Value
from bench.measure import Effort, rate_ratio
from bench.memory import resident_mb
from bench.vectors import play, random_actions, seconds_of_both
from newt.client import RemoteVectorEnv
from newt.tasks.domains import installed_domains
from newt.tasks.registry import Task, get_task

# A task of each domain whose steps cost about what the domain's usually cost.
TASKS = (
    "walker-walk",
    "giraffe-run",
    "mw-door-open",
    "ms-pick-cube",
    "mujoco-halfcheetah",
    "bipedal-walker-flat",
    "rd-push-red",
    "og-ant",
    "pygame-pong",
    "atari-pong",
)
LEAST_RATIO = 0.9
"""The goal: what the service keeps at least of the speed of a process per instance."""


def run(effort: Effort) -> Iterator[Figure]:
    """One domain after the other, each in processes of its own; domains that are not installed are left out."""
    names = effort.pick(full=TASKS, quick=TASKS, tiny=("walker-walk", "pygame-pong"))
    installed = installed_domains()
    for task in map(get_task, names):
        if task.domain in installed:
            yield from _domain(task, effort)


def _domain(task: Task, effort: Effort) -> Iterator[Figure]:
    key, cores = f"domains.{task.domain}", len(os.sched_getaffinity(0))
    count = effort.pick(full=8, quick=8, tiny=2)
    seconds = effort.pick(full=0.15, quick=0.15, tiny=0.02)
    alone = measure(task.domain, task.name, task.action_dim, count, effort.repetitions, seconds)
    yield Value(f"{key}.alone", f"one {task.name}, no service, one core", "env steps/s", Spread.of(alone.steps_per_s))
    yield _once(f"{key}.alone_mb", "one more instance in a process", "MB", alone.instance_mb)
    start = time.perf_counter()
    with processes.running("services.sim", "newt.v1.SimService", {"DOMAINS": task.domain}) as service:
        yield _once(f"{key}.start", "its service, from start to ready", "s", time.perf_counter() - start)
        yield _once(f"{key}.start_mb", "its service when ready, workers included", "MB", resident_mb(service.pid))
        with closing(RemoteVectorEnv(task.name, cores, address=service.address)) as first:
            _timed(first, random_actions(4, cores, task.action_dim))  # Every worker has imported the domain now.
            before = resident_mb(service.pid)
            with closing(RemoteVectorEnv(task.name, count, address=service.address)) as remote:
                actions = random_actions(4, count, task.action_dim)
                taken = _timed(remote, actions)
                yield _once(f"{key}.service_mb", "one more instance", "MB", (resident_mb(service.pid) - before) / count)
                actions = random_actions(int(np.clip(4 * seconds / taken, 4, 400)), count, task.action_dim)
                yield from _compare(key, task, remote, actions, effort, cores)


def _compare(
    key: str, task: Task, remote: RemoteVectorEnv, actions: npt.NDArray[np.float32], effort: Effort, cores: int
) -> Iterator[Figure]:
    """The service beside gymnasium's AsyncVectorEnv."""
    steps, count, _ = actions.shape
    with single_threaded():
        envs = async_envs(task.domain, task.name, task.obs_dim, task.action_dim, count)
    with closing(envs) as plain:
        _timed(plain, actions[:4])
        held = sum(resident_mb(process.pid) for process in plain.processes if process.pid is not None)
        yield _once(f"{key}.async_mb", "an instance with a process of its own", "MB", held / count)
        times = seconds_of_both(remote, plain, actions, effort)
    yield rate_ratio(
        f"{key}.speed",
        f"{count} instances of {task.name} on {cores} cores; plain: AsyncVectorEnv, a process each",
        "env steps/s per core",
        steps * count / cores,
        times["ours"],
        times["plain"],
        at_least=LEAST_RATIO,
    )


def _timed(envs: Any, actions: npt.NDArray[np.float32]) -> float:
    """Steps from fresh episodes; returns the seconds of the steps."""
    envs.reset(seed=1)
    start = time.perf_counter()
    play(envs, actions)
    return time.perf_counter() - start


def _once(key: str, what: str, unit: str, value: float) -> Value:
    return Value(key, what, unit, Spread.of([value]))
