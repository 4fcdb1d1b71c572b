"""What one instance has lived through in its episode, for a file when it fails, so that it can be stepped again."""

from __future__ import annotations

import collections
import json
import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

log = structlog.get_logger(__name__)

LAST_OBS = 100
"""Observations that are kept; actions are kept from the first step on, since a simulator can only begin at a seed."""
MAX_ACTIONS_BYTES = 4_000_000
"""More of one episode are not kept, and the file says that it is not whole."""
MAX_FILES = 20
"""Files of crashes in the folder; the oldest go."""
FOLDER_VARIABLE = "NEWT_SIM_CRASH_DIR"
_PREFIX = "crash-"


class Trail:
    """The present episode of one instance.

    Args:
        domain: Domain of the task.
        task: Its name.
    """

    def __init__(self, domain: str, task: str) -> None:
        self._domain, self._task = domain, task
        self._actions = bytearray()
        self._obs: collections.deque[bytes] = collections.deque(maxlen=LAST_OBS)
        self._seed, self._steps = 0, 0

    def begin(self, seed: int, obs: npt.NDArray[np.float32] | None = None) -> None:
        """Forgets the last episode; `obs` is the first one, as soon as there is one."""
        self._actions.clear()
        self._obs.clear()
        self._seed, self._steps = seed, 0
        if obs is not None:
            self._obs.append(obs.tobytes())

    def act(self, action: npt.NDArray[np.float32]) -> None:
        """Notes an action before it is taken."""
        self._steps += 1
        if len(self._actions) < MAX_ACTIONS_BYTES:
            self._actions += action.tobytes()

    def see(self, obs: npt.NDArray[np.float32]) -> None:
        """Notes what it has led to."""
        self._obs.append(obs.tobytes())

    def write(self, folder: Path, action_dim: int, error: BaseException) -> Path | None:
        """Writes the file; returns its path, or None if that is not possible, which must not matter to anybody.

        Args:
            folder: Where; it is made.
            action_dim: Columns of an action.
            error: Why the instance failed.
        """
        actions = np.frombuffer(bytes(self._actions), np.float32).reshape(-1, action_dim)
        facts = {
            "task": self._task,
            "domain": self._domain,
            "seed": self._seed,
            "steps": self._steps,
            "whole": len(actions) == self._steps,
            "error": f"{type(error).__name__}: {error}",
            "sources": os.environ.get("NEWT_SIM_SOURCES", "[]"),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        obs = np.array([np.frombuffer(one, np.float32) for one in self._obs], np.float32)
        path = folder / f"{_PREFIX}{self._task}-{time.time_ns()}-{os.getpid()}.npz"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, facts=np.array(json.dumps(facts)), actions=actions, last_obs=obs)
            for old in sorted(folder.glob(f"{_PREFIX}*.npz"), key=lambda file: file.stat().st_mtime)[:-MAX_FILES]:
                old.unlink(missing_ok=True)
        except OSError as failure:
            log.warning("crash_not_written", folder=str(folder), error=str(failure))
            return None
        return path
