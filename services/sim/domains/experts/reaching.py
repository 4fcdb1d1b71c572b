"""Arms in a plane that bring their finger to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from services.sim.domains.experts.mechanics import Expert, Vector, as_action

_ROUNDS = 100  # Of solving for a pose, by damped Newton steps.
_DAMPING = 0.02  # Metres of lever; a step is shorter where the arm can hardly move the finger towards the target.
_FAR_REACH = 0.005  # Metres further from the target than the best pose found: not worth a shorter way.


@dataclass(frozen=True)
class Reach:
    """Makes the expert of an arm whose joints come first in the state, one motor each.

    The expert looks for the nearest pose in which the finger is at the target, and moves all joints there like springs
    that are damped critically.

    Attributes:
        finger: Body that has to come to the target, by name.
        target: Geom to come to, by name.
        frequency: Frequency of the springs, rad/s.
        yielding: How far the motors can push a joint beyond its limit, rad.
    """

    finger: str
    target: str
    frequency: float
    yielding: float = 0.0

    def __call__(self, model: Any, data: Any, steps: int) -> Expert:
        """The expert, see `MakeExpert`."""
        inverse = _Poses(model, mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, self.finger), self.yielding)
        target = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, self.target)
        scratch = mujoco.MjData(model)
        arm = slice(0, model.nu)
        mass = np.zeros((model.nv, model.nv))
        goal, pose = np.full(2, np.nan), np.zeros(model.nu)

        def act() -> Vector:
            # A copy: positions of bodies in `data` may be those before the last physics step.
            scratch.qpos[:], scratch.qvel[:] = data.qpos, data.qvel
            mujoco.mj_forward(model, scratch)
            mujoco.mj_fullM(model, mass, scratch.qM)
            if not np.allclose(goal, scratch.geom_xpos[target, :2]):  # A new episode.
                goal[:] = scratch.geom_xpos[target, :2]
                pose[:] = inverse.nearest(scratch.qpos[arm], goal)
            missing = inverse.way(scratch.qpos[arm], pose)
            pull = self.frequency**2 * missing - 2 * self.frequency * scratch.qvel[arm]
            forces = mass[arm, arm] @ pull + scratch.qfrc_bias[arm] - scratch.qfrc_passive[arm]
            return as_action(model, forces)

        return act


class _Poses:
    """Joint angles that bring a body to a place."""

    def __init__(self, model: Any, finger: int, yielding: float) -> None:
        self._model, self._finger = model, finger
        self._scratch = mujoco.MjData(model)
        self._jacobian = np.zeros((3, model.nv))
        self._limited = model.jnt_limited[: model.nu].astype(bool)
        self._low = np.where(self._limited, model.jnt_range[: model.nu, 0] - yielding, -np.inf)
        self._high = np.where(self._limited, model.jnt_range[: model.nu, 1] + yielding, np.inf)

    def way(self, start: Vector, end: Vector) -> Vector:
        """From one pose to another, rad; joints without limits go the short way round."""
        difference = end - start
        turns = np.remainder(difference + math.pi, 2 * math.pi) - math.pi
        return np.where(self._limited, difference, turns)

    def nearest(self, start: Vector, goal: Vector) -> Vector:
        """Of the poses closest to the goal, the one with the shortest way from the start.

        Args:
            start: Joint angles now, float64[A], rad.
            goal: Place where the body has to be, float64[2], metres.
        """
        bend = np.where(self._limited, np.minimum(self._high, 1.0), 0.0)
        solutions = [
            self._solve(first, goal) for first in (start, start * ~self._limited + bend, start * ~self._limited - bend)
        ]
        best = min(miss for _, miss in solutions)
        close = [pose for pose, miss in solutions if miss <= best + _FAR_REACH]
        return min(close, key=lambda pose: float(np.linalg.norm(self.way(start, pose))))

    def _solve(self, start: Vector, goal: Vector) -> tuple[Vector, float]:
        """A pose and how far from the goal it leaves the body, metres."""
        model, scratch, count = self._model, self._scratch, self._model.nu
        pose = start.copy()
        for _ in range(_ROUNDS):
            scratch.qpos[:count] = pose
            mujoco.mj_kinematics(model, scratch)
            mujoco.mj_comPos(model, scratch)
            mujoco.mj_jacBody(model, scratch, self._jacobian, None, self._finger)
            missing = goal - scratch.xpos[self._finger, :2]
            lever = self._jacobian[:2, :count]
            towards = missing @ lever
            # The others have to do without joints that are at their limits.
            lever = lever * ~((pose <= self._low) & (towards < 0) | (pose >= self._high) & (towards > 0))
            change = lever.T @ np.linalg.solve(lever @ lever.T + _DAMPING**2 * np.eye(2), missing)
            pose = np.clip(pose + change, self._low, self._high)
        return pose, float(np.linalg.norm(missing))
