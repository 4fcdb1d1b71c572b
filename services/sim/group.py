"""The instances of one session that live in one worker process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog

from newt.wire.v1 import sim_pb2
from services.sim import domains
from services.sim.block import SessionBlock
from services.sim.domains.base import SimEnv, StepResult
from services.sim.seeds import mix
from services.sim.trail import FOLDER_VARIABLE, Trail

log = structlog.get_logger(__name__)

# Episodes of a row's sequence that may fail to start, one after the other, before the simulator counts as broken.
_MAX_SKIPPED = 3


@dataclass(frozen=True)
class Member:
    """One instance: its row in the session, and what a worker must know of its task."""

    row: int
    task: str
    domain: str
    obs_dim: int
    action_dim: int


@dataclass(frozen=True)
class GroupSpec:
    """What a worker is told of a session.

    Attributes:
        session_rows: Instances of the whole session, which decides the block's layout.
        members: Those of this worker.
        rgb: Draw a frame with every observation.
        same_step: Start the next episode in the step which ends one.
        with_expert: Ask the scripted expert with every observation.
    """

    session_rows: int
    members: tuple[Member, ...]
    rgb: bool
    same_step: bool
    with_expert: bool

    def dump(self) -> bytes:
        """As one message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def load(cls, message: bytes) -> GroupSpec:
        """From `dump`."""
        values = json.loads(message)
        values["members"] = tuple(Member(**member) for member in values["members"])
        return cls(**values)


class Group:
    """Steps its rows of a session's block. Errors of one instance are repaired here and marked in its row.

    Args:
        spec: Which rows, and how.
        block: The session's shared memory.
        pulse: int64[1], counted up before each piece of work, so that the parent can tell slow from stuck.
    """

    def __init__(self, spec: GroupSpec, block: SessionBlock, pulse: npt.NDArray[np.int64]) -> None:
        self._spec = spec
        self._block = block
        self._pulse = pulse
        self._members = {member.row: member for member in spec.members}
        # Views of the block, made once: making them takes as long as a light simulator's step.
        self._actions = {member.row: block.action[member.row, : member.action_dim] for member in spec.members}
        self._shown = {member.row: block.obs[member.row, : member.obs_dim] for member in spec.members}
        self._envs: dict[int, SimEnv] = {}
        self._trails = {member.row: Trail(member.domain, member.task) for member in spec.members}
        self._crash_dir = Path(os.environ.get(FOLDER_VARIABLE) or "crashes")

    @property
    def tasks(self) -> set[str]:
        """Names of its tasks."""
        return {member.task for member in self._members.values()}

    def build(self, row: int) -> None:
        """Makes the instance of a row; it must be reset before it can step."""
        self._pulse[0] += 1
        member = self._members[row]
        self._envs[row] = domains.make(member.domain, member.task, self._spec.rgb)

    def reset(self) -> None:
        """Starts an episode in the active rows: of the seed asked for, or the next one of the row's sequence."""
        block = self._block
        for row in self._members:
            if not block.active[row]:
                continue
            if block.reset_seeded[row]:
                # The sequence starts anew from an explicit seed, so that everything after it repeats too.
                block.origin[row] = seed = int(block.reset_seed[row])
                block.next_episode[row] = 0
                self._start_episode(row, seed)
            else:
                self._start_next_episode(row)
            block.error[row] = sim_pb2.ENV_ERROR_UNSPECIFIED

    def step(self) -> None:
        """One agent step of the active rows."""
        active = self._block.active.tolist()
        for row, env in self._envs.items():
            if not active[row]:
                continue
            self._pulse[0] += 1
            action, trail = self._actions[row], self._trails[row]
            trail.act(action)
            try:
                result = env.step(action)
                corrected = env.corrected_score
                check_finite(result.obs, result.reward, result.score, corrected or 0.0)
                frame = self._frame(env)
                ended = result.terminated or result.truncated
                expert = None if ended and self._spec.same_step else self._expert(env)
            except Exception as error:
                self._block.not_finite[row] += isinstance(error, FloatingPointError)
                path = trail.write(self._crash_dir, len(action), error)
                log.exception("simulator_failed", task=self._members[row].task, row=row, trail=str(path))
                self._replace(row)
            else:
                trail.see(result.obs)
                self._store(row, result, corrected, frame, expert)

    def draw(self) -> None:
        """Draws the active rows."""
        for row, env in self._envs.items():
            if self._block.active[row]:
                self._pulse[0] += 1
                self._block.frames[row] = env.render()

    def close(self) -> None:
        """Frees the instances."""
        for env in self._envs.values():
            with contextlib.suppress(Exception):
                env.close()
        self._envs.clear()
        gc.collect()  # Simulators are full of cycles, and big.
        with contextlib.suppress(AttributeError):  # A C library other than glibc.
            ctypes.CDLL(None).malloc_trim(0)  # Without it, hundreds of megabytes stay with the process.

    def _store(
        self,
        row: int,
        result: StepResult,
        corrected_score: float | None,
        frame: npt.NDArray[np.uint8] | None,
        expert: npt.NDArray[np.float32] | None,
    ) -> None:
        block = self._block
        block.reward[row] = result.reward
        block.terminated[row] = result.terminated
        block.truncated[row] = result.truncated
        block.success[row] = result.success
        block.score[row] = result.score
        block.corrected_score[row] = result.score if corrected_score is None else corrected_score
        block.error[row] = sim_pb2.ENV_ERROR_UNSPECIFIED
        ended = result.terminated or result.truncated
        if ended:
            block.final_obs[row, : len(result.obs)] = result.obs
            if frame is not None:
                block.final_rgb[row] = frame
        if ended and self._spec.same_step:
            self._start_next_episode(row)
        else:
            block.episode_step[row] += 1
            self._show(row, result.obs, frame, expert)

    def _replace(self, row: int) -> None:
        """Ends a failed instance's episode as the contract says, and builds the instance anew."""
        block = self._block
        block.reward[row] = np.nan
        block.terminated[row] = False
        block.truncated[row] = True
        block.success[row] = np.nan
        block.error[row] = sim_pb2.ENV_ERROR_CRASHED
        block.final_obs[row] = block.obs[row]
        if self._spec.rgb:
            block.final_rgb[row] = block.rgb[row]
        self._rebuild(row)
        if self._spec.same_step:
            self._start_next_episode(row)

    def _rebuild(self, row: int) -> None:
        with contextlib.suppress(Exception):
            self._envs[row].close()
        self.build(row)

    def _start_next_episode(self, row: int) -> None:
        """Starts the next episode of the row's sequence that can be started."""
        block = self._block
        for attempt in range(1 + _MAX_SKIPPED):
            episode = int(block.next_episode[row])
            block.next_episode[row] = episode + 1
            try:
                self._start_episode(row, mix(int(block.origin[row]), episode))
                return
            except Exception:
                # Its seed leads to something that cannot be simulated. Whoever collects wants an episode, not this one.
                if attempt == _MAX_SKIPPED:
                    raise
                log.warning("episode_skipped", task=self._members[row].task, row=row, episode=episode)

    def _start_episode(self, row: int, seed: int) -> None:
        self._pulse[0] += 1
        trail = self._trails[row]
        trail.begin(seed)
        try:
            obs = self._first_obs(row, seed)
        except Exception as error:
            self._block.not_finite[row] += isinstance(error, FloatingPointError)
            path = trail.write(self._crash_dir, len(self._actions[row]), error)
            # A simulator can be left in a state from which it cannot even reset; a new one fails only if the
            # seed itself is the cause.
            log.exception("simulator_failed", task=self._members[row].task, row=row, seed=seed, trail=str(path))
            self._rebuild(row)
            obs = self._first_obs(row, seed)
        trail.begin(seed, obs)
        env = self._envs[row]
        self._block.episode_seed[row] = seed
        self._block.episode_step[row] = 0
        self._show(row, obs, self._frame(env), self._expert(env))

    def _first_obs(self, row: int, seed: int) -> npt.NDArray[np.float32]:
        obs = self._envs[row].reset(seed)
        check_finite(obs)
        return obs

    def _show(
        self,
        row: int,
        obs: npt.NDArray[np.float32],
        frame: npt.NDArray[np.uint8] | None,
        expert: npt.NDArray[np.float32] | None,
    ) -> None:
        block = self._block
        self._shown[row][:] = obs
        if frame is not None:
            block.rgb[row] = frame
        if expert is not None:
            block.expert_action[row, : len(expert)] = expert

    def _frame(self, env: SimEnv) -> npt.NDArray[np.uint8] | None:
        return env.render().transpose(2, 0, 1) if self._spec.rgb else None

    def _expert(self, env: SimEnv) -> npt.NDArray[np.float32] | None:
        return env.expert_action() if self._spec.with_expert else None


def check_finite(obs: npt.NDArray[np.float32], *others: float) -> None:
    """Raises FloatingPointError where somebody would have to act on, or learn from, a number that is none."""
    # A sum of squares is three times cheaper than looking at every number; it may overflow, but misses nothing.
    if not (math.isfinite(obs.dot(obs)) or bool(np.isfinite(obs).all())):
        column = int(np.argmin(np.isfinite(obs)))
        raise FloatingPointError(f"observation column {column} is not finite: {obs[column]}")
    for name, value in zip(("reward", "score", "corrected score"), others, strict=False):
        if not math.isfinite(value):
            raise FloatingPointError(f"the {name} is not finite: {value}")
