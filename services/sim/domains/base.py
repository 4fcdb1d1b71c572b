"""What a domain offers: one simulator instance behind five methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FRAME_SIZE = 224
"""Height and width of every frame, pixels."""

RENDER_BACKEND_VARIABLE = "NEWT_SIM_RENDER_BACKEND"
"""Environment variable that tells a worker how to draw: auto, egl or osmesa. Also the server's own setting."""


class RenderingError(RuntimeError):
    """There is no way to draw on this machine; the message says what to install."""


class MissingAssetError(RuntimeError):
    """A task needs files that are not on this machine and are not ours to ship; the message says how to get them."""


@dataclass(slots=True)  # Not frozen, which would triple the time to make one.
class StepResult:
    """What one agent step brought.

    Attributes:
        obs: float32[O], the task's own O columns, unpadded.
        reward: Sum over the step's action repeats.
        terminated: The task itself ended; there is nothing to bootstrap from.
        truncated: The time limit was reached.
        success: 0 or 1 after this step, NaN where the task defines none.
        score: The episode's published score so far, in [0, 1].
    """

    obs: npt.NDArray[np.float32]
    reward: float
    terminated: bool
    truncated: bool
    success: float
    score: float


class SimEnv(ABC):
    """One instance of one task.

    A domain module has a function `make(task, rendering) -> SimEnv`; a worker calls it, and then these methods, all
    from one thread. An exception out of any of them costs the instance (it is rebuilt), not its neighbours.

    Attributes:
        corrected_score: Corrected score of the episode so far, in [0, 1]; None where the published score needs no
            correction. Which tasks have one, and why, is in newt.tasks.corrected_scores.
    """

    corrected_score: float | None = None

    @abstractmethod
    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Starts the episode of this seed.

        Args:
            seed: 0..2**64-1. It alone determines the episode: no earlier episode, no frame drawn and no
                global random generator may have any influence.

        Returns:
            float32[O], the first observation.
        """

    @abstractmethod
    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """One agent step.

        Args:
            action: float32[A], finite and in [-1, 1]. A view that is only valid during the call.
        """

    @abstractmethod
    def render(self) -> npt.NDArray[np.uint8]:
        """Draws the current state, uint8[224, 224, 3]; changes nothing.

        Raises:
            RenderingError: No driver; the message says what to install.
        """

    def expert_action(self) -> npt.NDArray[np.float32]:
        """The scripted expert's action for the current observation, float32[A] in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} has no scripted expert")

    def close(self) -> None:  # noqa: B027 - most simulators hold nothing of the kind
        """Frees what garbage collection would not."""


def flat_float32(parts: Any) -> npt.NDArray[np.float32]:
    """Concatenates numbers and arrays, flattened in order, as float32."""
    return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)
