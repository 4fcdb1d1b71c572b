"""Tasks that misbehave, as a domain of their own, and work that ends its process."""

import dataclasses
import math
import os
import signal
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.tasks.registry import Task, get_task
from services.sim.domains.base import MissingAssetError, SimEnv, StepResult
from services.sim.domains.noop import TASKS, NoopEnv

DOMAIN = "broken"


def broken(fault: str, **changes: Any) -> Task:
    """A task of ten steps with one fault; the registry's facts can be changed."""
    facts: dict[str, Any] = {"obs_dim": 3, "action_dim": 2, "episode_length": 5, "has_success": True, **changes}
    return dataclasses.replace(get_task("mw-reach"), name=fault, domain=DOMAIN, **facts)


class BrokenEnv(NoopEnv):
    def __init__(self, fault: str, rendering: bool) -> None:
        super().__init__(TASKS[1])
        self._fault, self._rendering = fault, rendering

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        obs = super().reset(0 if self._fault == "seedless" else seed)
        if self._fault == "global-generator":
            self._obs[0] = obs[0] = np.random.random()
        return obs

    def expert_action(self) -> npt.NDArray[np.float32]:
        return super().expert_action() * (2 if self._fault == "wild-expert" else 1)

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        result = super().step(action)
        if self._fault == "differs" and self._rendering and self._steps == 3:
            result.obs[2] += 1e-6
        if self._fault == "corrects":
            self.corrected_score = result.score / 2
        changes: dict[str, dict[str, Any]] = {
            "obs-not-finite": {"obs": result.obs * math.nan},
            "obs-float64": {"obs": result.obs.astype(np.float64)},
            "reward-not-finite": {"reward": math.inf},
            "score": {"score": 1.01},
            "success": {"success": 0.5},
            "no-success": {"success": math.nan},
            "terminates": {"terminated": self._steps == 3},
            "never-ends": {"truncated": False},
        }
        return dataclasses.replace(result, **changes.get(self._fault, {}))

    def render(self) -> npt.NDArray[np.uint8]:
        if self._fault == "small-frame":
            return np.zeros((64, 64, 3), np.uint8)
        if self._fault == "black":
            return np.zeros((224, 224, 3), np.uint8)
        if self._fault == "flickers":
            return np.random.default_rng().integers(0, 255, (224, 224, 3), np.uint8)
        return super().render()


def make(task: str, rendering: bool) -> SimEnv:
    if task == "missing-asset":
        raise MissingAssetError("no mesh: run the download")
    if task == "raises":
        raise RuntimeError("no model")
    return BrokenEnv(task, rendering)


def process_of(task: Task) -> int:
    """For the tests of isolation: ends or blocks its process in the way that the task's name says."""
    if task.name == "dies":
        os.write(sys.stderr.fileno(), b"the driver's last words\n")
        os.kill(os.getpid(), signal.SIGSEGV)
    if task.name == "exits":
        os._exit(3)
    if task.name == "hangs":
        time.sleep(600)
    if task.name == "raises":
        raise RuntimeError("no model")
    return os.getpid()
