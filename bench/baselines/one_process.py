"""Simulators in a process of their own, without any service: speed of one, memory of several."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from unittest import mock

import numpy as np
import numpy.typing as npt

from bench.memory import resident_mb
from services.sim.domains import make
from services.sim.domains.base import SimEnv

# As in the service's workers: no thread pools beside each other on the same cores, nothing drawn.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MUJOCO_GL": "disable"}


@dataclass(frozen=True)
class Alone:
    """What was measured.

    Attributes:
        steps_per_s: Env steps per second of one instance on one core, once per repetition; resets included.
        instance_mb: What one more instance takes.
    """

    steps_per_s: list[float]
    instance_mb: float


@contextmanager
def single_threaded() -> Iterator[None]:
    """Processes that start in this block get the environment of the service's workers."""
    with mock.patch.dict(os.environ, _ENVIRONMENT):
        yield


def measure(domain: str, task: str, action_dim: int, instances: int, repetitions: int, seconds: float) -> Alone:
    """Measures in a fresh process, which imports this domain alone.

    Args:
        domain: Domain of the task.
        task: Its name.
        action_dim: Columns of its actions.
        instances: How many more share the process when memory is measured.
        repetitions: How often speed is measured.
        seconds: Seconds to play each time.
    """
    with single_threaded(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, domain, task, action_dim, instances, repetitions, seconds).result()


def _measure(domain: str, task: str, action_dim: int, instances: int, repetitions: int, seconds: float) -> Alone:
    actions = np.random.default_rng(0).uniform(-1, 1, (64, action_dim)).astype(np.float32)
    envs = [_playing(domain, task, actions)]
    before = resident_mb(os.getpid())
    envs += [_playing(domain, task, actions) for _ in range(instances)]
    instance_mb = (resident_mb(os.getpid()) - before) / instances
    rates = [_rate(envs[0], actions, seconds) for _ in range(repetitions)]
    for env in envs:
        env.close()
    return Alone(rates, instance_mb)


def _playing(domain: str, task: str, actions: npt.NDArray[np.float32]) -> SimEnv:
    """An instance in the middle of an episode."""
    env = make(domain, task, rendering=False)
    env.reset(0)
    for action in actions[:4]:
        env.step(action)
    return env


def _rate(env: SimEnv, actions: npt.NDArray[np.float32], seconds: float) -> float:
    env.reset(0)
    steps, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        result = env.step(actions[steps % len(actions)])
        steps += 1
        if result.terminated or result.truncated:
            env.reset(steps)
    return steps / taken
