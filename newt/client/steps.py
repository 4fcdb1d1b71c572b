"""What the instances of a simulator's session return, and how it is read off the wire.

Letters: N instances, O = 128 and A = 16 columns, F finished rows; protos/newt/v1/sim.proto has the semantics.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.tensors import decode
from newt.wire.v1 import sim_pb2, tensor_pb2


@dataclass(frozen=True)
class Observation:
    """What N instances show now. Arrays are read-only.

    Attributes:
        obs: float32[N, O], zero-padded.
        rgb: uint8[N, 3, 224, 224], or None in state mode.
        expert_action: float32[N, A], or None unless asked for.
        episode_seed: uint64[N].
        episode_step: int32[N], 0 for a first observation.
    """

    obs: npt.NDArray[np.float32]
    rgb: npt.NDArray[np.uint8] | None
    expert_action: npt.NDArray[np.float32] | None
    episode_seed: npt.NDArray[np.uint64]
    episode_step: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Step:
    """One step of N instances. Arrays are read-only.

    Attributes:
        observation: After the step (and after auto-reset).
        reward: float32[N]; NaN for a crashed row.
        terminated: bool[N].
        truncated: bool[N].
        success: float32[N], NaN where undefined.
        score: float32[N], the published score of the episode so far.
        corrected_score: float32[N], the score that reports use: `score` but for the tasks of
            newt.tasks.corrected_scores.
        final_rows: int32[F], rows whose episode has ended, ascending.
        final_obs: float32[F, O].
        final_rgb: uint8[F, 3, 224, 224], or None in state mode.
        crashed: bool[N], rows whose simulator died: discard this transition.
        draining: The server is being stopped, or the session old: close it when running episodes have ended, and open
            another.
    """

    observation: Observation
    reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    success: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    corrected_score: npt.NDArray[np.float32]
    final_rows: npt.NDArray[np.int32]
    final_obs: npt.NDArray[np.float32]
    final_rgb: npt.NDArray[np.uint8] | None
    crashed: npt.NDArray[np.bool_]
    draining: bool = False

    @functools.cached_property
    def ended(self) -> npt.NDArray[np.bool_]:
        """bool[N], rows whose episode has ended; their observation is the next episode's first (with auto-reset)."""
        ended = np.zeros(len(self.reward), np.bool_)
        ended[self.final_rows] = True
        return ended

    @functools.cached_property
    def reached_obs(self) -> npt.NDArray[np.float32]:
        """float32[N, O], what the transition led to: where an episode has ended, its last observation."""
        return self._reached(self.observation.obs, self.final_obs)

    @functools.cached_property
    def reached_rgb(self) -> npt.NDArray[np.uint8] | None:
        """uint8[N, 3, 224, 224], the same of frames; None in state mode."""
        if self.observation.rgb is None or self.final_rgb is None:
            return self.observation.rgb
        return self._reached(self.observation.rgb, self.final_rgb)

    def _reached(self, shown: npt.NDArray[Any], final: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not len(self.final_rows):
            return shown
        reached = shown.copy()
        reached[self.final_rows] = final
        return reached


def read_observation(message: sim_pb2.Observation, rows: int) -> Observation:
    """Unpacks N = `rows` observations. Raises InvalidInputError naming the field that is not as it should be."""
    return Observation(
        obs=decode(message.obs, "obs", dtype=np.float32, shape=(rows, PADDED_OBS_DIM)),
        rgb=_frames(message, "rgb", rows),
        expert_action=(
            decode(message.expert_action, "expert_action", dtype=np.float32, shape=(rows, PADDED_ACTION_DIM))
            if message.HasField("expert_action")
            else None
        ),
        episode_seed=decode(message.episode_seed, "episode_seed", dtype=np.uint64, shape=(rows,)),
        episode_step=decode(message.episode_step, "episode_step", dtype=np.int32, shape=(rows,)),
    )


@functools.cache
def _no(rows: int) -> npt.NDArray[np.bool_]:
    values = np.zeros(rows, np.bool_)
    values.flags.writeable = False
    return values


@functools.cache
def _undefined(rows: int) -> npt.NDArray[np.float32]:
    values = np.full(rows, np.nan, np.float32)
    values.flags.writeable = False
    return values


_NO_ROWS = np.zeros(0, np.int32)
_NO_OBS = np.zeros((0, PADDED_OBS_DIM), np.float32)


def read_step(message: sim_pb2.StepResponse, rows: int) -> Step:
    """Unpacks a step of N = `rows` instances. Raises as `read_observation`."""

    def column(tensor: tensor_pb2.Tensor, name: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return decode(tensor, name, dtype=dtype, shape=(rows,))

    final_rows, final_obs = _NO_ROWS, _NO_OBS
    terminated = truncated = crashed = _no(rows)
    if message.HasField("final_rows"):
        final_rows = decode(message.final_rows, "final_rows", dtype=np.int32, shape=(None,))
        final_obs = decode(message.final_obs, "final_obs", dtype=np.float32, shape=(len(final_rows), PADDED_OBS_DIM))
        terminated = column(message.terminated, "terminated", np.bool_)
        truncated = column(message.truncated, "truncated", np.bool_)
    if message.HasField("errors"):
        crashed = column(message.errors, "errors", np.int32) != 0
    score = column(message.score, "score", np.float32)
    corrected = message.HasField("corrected_score")
    return Step(
        observation=read_observation(message.observation, rows),
        reward=column(message.reward, "reward", np.float32),
        terminated=terminated,
        truncated=truncated,
        success=column(message.success, "success", np.float32) if message.HasField("success") else _undefined(rows),
        score=score,
        corrected_score=column(message.corrected_score, "corrected_score", np.float32) if corrected else score,
        final_rows=final_rows,
        final_obs=final_obs,
        final_rgb=_frames(message, "final_rgb", len(final_rows)),
        crashed=crashed,
        draining=message.draining,
    )


def _frames(message: sim_pb2.Observation | sim_pb2.StepResponse, field: str, rows: int) -> npt.NDArray[np.uint8] | None:
    # A field's name is checked against the type at run time alone.
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    return decode(getattr(message, field), field, dtype=np.uint8, shape=(rows, 3, None, None))
