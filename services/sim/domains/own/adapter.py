"""A declared Gymnasium environment as a simulator of Newt."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from newt.errors import InvalidInputError
from newt.own import OwnTask, Returns, Success
from newt.tasks.pace import MAX_STEPS_PER_S, MIN_STEPS_PER_S
from services.sim.domains.base import FRAME_SIZE, RenderingError, SimEnv, StepResult
from services.sim.domains.own.spaces import ObservationColumns, action_columns, observation_columns

MAX_REWARD = math.exp(10) - 1
"""Largest reward, either way, that the agent's bins can tell: symlog of it is 10."""
_STEP = "(observation, reward, terminated, truncated, info)"
SEEDS = 2**31 - 1
"""Environments hand their seed to generators that take no more bits than this."""


def build(own: OwnTask) -> gymnasium.Env[Any, Any]:
    """Makes the environment, told to draw pictures if it can be told.

    Raises:
        InvalidInputError: It makes something else.
    """
    parameters = inspect.signature(own.make).parameters.values()
    drawn = any(one.name == "render_mode" or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    with nobody_exits():
        env = own.make(render_mode="rgb_array") if drawn else own.make()
    if not isinstance(env, gymnasium.Env):
        raise InvalidInputError("make", f"it made a {type(env).__name__}, expected a gymnasium.Env")
    return env


@contextmanager
def nobody_exits() -> Iterator[None]:
    """An environment that calls `exit` ends its episode, not the process with its neighbours in it.

    A child that it has forked ends here, whatever it does: it must not go on as if it were us, on our connections.
    """
    process = os.getpid()
    try:
        yield
    except SystemExit as error:
        if os.getpid() != process:
            os._exit(error.code if isinstance(error.code, int) else error.code is not None)
        raise RuntimeError(f"the environment called exit({error.code!r}); raise an exception instead") from error
    finally:
        if os.getpid() != process:
            print(f"a process that the environment has forked from {process} came back, and was ended", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)


class OwnEnv(SimEnv):
    """One instance of an environment of somebody else's.

    Args:
        own: Its declaration.

    Raises:
        InvalidInputError: Spaces that agents cannot deal with; names them and says what to do.
    """

    def __init__(self, own: OwnTask) -> None:
        self._own = own
        self.env = build(own)
        self.observation: ObservationColumns = observation_columns(self.env.observation_space)
        self.action = action_columns(self.env.action_space)
        self._last: Any = None
        self._steps, self._return = 0, 0.0

    @property
    def steps_per_s(self) -> float | None:
        """What its metadata say in `render_fps`; None where they say nothing, or what cannot be."""
        said = self.env.metadata.get("render_fps")
        rate = float(said) if isinstance(said, Real) else 0.0
        return rate if MIN_STEPS_PER_S <= rate <= MAX_STEPS_PER_S else None

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Resets with the seed, folded to 31 bits."""
        with nobody_exits():
            self._last, _ = _parts("reset", self.env.reset(seed=seed % SEEDS), "(observation, info)")
        self._steps, self._return = 0, 0.0
        return self._columns()

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """One step of the environment; the time limit is the declared one, and any that it has of its own."""
        with nobody_exits():
            result: object = self.env.step(self.action.decode(action))
        self._last, reward, terminated, truncated, info = _parts("step", result, _STEP)
        self._steps += 1
        reward = float(reward)
        if not abs(reward) <= MAX_REWARD:
            raise FloatingPointError(
                f"reward {reward} at step {self._steps}; expected a number within ±{MAX_REWARD:.0f}, beyond which "
                "agents tell nothing apart: scale it"
            )
        self._return += reward
        success, score = self._judged(info)
        return StepResult(
            obs=self._columns(),
            reward=reward,
            terminated=bool(terminated),
            truncated=bool(truncated) or self._steps >= self._own.episode_length,
            success=success,
            score=score,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """What the environment draws, brought to 224 x 224."""
        frame: Any = None
        with nobody_exits(), contextlib.suppress(NotImplementedError):
            frame = self.env.render()
        picture = np.asarray(frame) if frame is not None else None
        if picture is None or picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            got = "nothing" if picture is None else f"{picture.dtype}{list(picture.shape)}"
            raise RenderingError(
                f"{self._own.name}: render() returned {got}, expected uint8[height, width, 3]; take render_mode in the "
                'constructor and draw for "rgb_array"'
            )
        if picture.shape[:2] == (FRAME_SIZE, FRAME_SIZE):
            return picture.copy()
        from services.sim.domains.frames import resize  # Pillow, which who draws nothing needs not have

        return resize(np.ascontiguousarray(picture))

    def expert_action(self) -> npt.NDArray[np.float32]:
        """What the declared expert does about the latest observation."""
        if self._own.expert is None:
            return super().expert_action()
        with nobody_exits():
            return self.action.encode(self._own.expert(self.env, self._last))

    def close(self) -> None:
        """Closes the environment."""
        with nobody_exits():
            self.env.close()

    def _columns(self) -> npt.NDArray[np.float32]:
        columns = self.observation.flatten(self._last)
        if not np.isfinite(columns).all():
            column = int(np.argmin(np.isfinite(columns)))
            raise FloatingPointError(f"observation column {column} is {columns[column]} after {self._steps} steps")
        return columns

    def _judged(self, info: dict[str, Any]) -> tuple[float, float]:
        """Success, NaN where the task defines none, and score so far."""
        match self._own.score:
            case Success(key):
                if key not in info:
                    raise KeyError(
                        f"info has no {key!r} after step {self._steps}, where the score comes from: {list(info)}"
                    )
                success = float(bool(info[key]))
                return success, success
            case Returns(worst, best):
                return math.nan, min(max((self._return - worst) / (best - worst), 0.0), 1.0)
        return math.nan, 0.0


def _parts(name: str, result: object, expected: str) -> tuple[Any, ...]:
    """What reset or step returned. Raises TypeError where it is not what Gymnasium wants since 0.26."""
    count = expected.count(",") + 1
    if isinstance(result, tuple) and len(result) == count:
        return result
    got = f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
    raise TypeError(f"{name}() returned {got}, expected {expected}")
