"""What experts of MuJoCo's bodies share: actions from torques, and feedback from a linearised model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

Expert = Callable[[], Vector]
"""The action for the state that the simulation is in now, float64[A] in [-1, 1]."""

MakeExpert = Callable[[Any, Any, int], Expert]
"""From MuJoCo's model, the data of the running simulation, and physics steps per agent step."""

_DISTURBANCE = 1e-5  # Of states and actions, in their units, around which the model is differentiated.
_RICCATI_ROUNDS = 2000  # Agent steps looked ahead; gains have settled after a few hundred.


class OnDemand:
    """An expert that is built at the first question: most instances are never asked."""

    def __init__(self, make: MakeExpert, model: Any, data: Any, steps: int) -> None:
        self._make, self._arguments = make, (model, data, steps)
        self._expert: Expert | None = None

    def __call__(self) -> npt.NDArray[np.float32]:
        """The action, float32[A] in [-1, 1]."""
        if self._expert is None:
            self._expert = self._make(*self._arguments)
        return self._expert().astype(np.float32)


def as_action(model: Any, forces: npt.ArrayLike) -> Vector:
    """The action that makes motors exert these joint forces (N or N m), as far as they can.

    Actuators have to be plain motors, one per joint in question and in the order of the forces, with symmetric limits.
    """
    strength = model.actuator_gear[:, 0] * model.actuator_ctrlrange[:, 1]
    action: Vector = np.clip(np.asarray(forces) / strength, -1.0, 1.0)
    return action


def feedback(model: Any, steps: int, state_costs: Sequence[float], action_cost: float) -> Vector:
    """Gains of the linear-quadratic regulator around the state of all zeros, an equilibrium.

    Args:
        model: MuJoCo's; hinges and sliders only, so that the state is positions and velocities, O = 2 J numbers.
        steps: Physics steps during which an action is held.
        state_costs: Costs of the squares of the O state numbers, per agent step.
        action_cost: Cost of the square of every action.

    Returns:
        float64[A, O]; the action is minus the gains times the state.
    """
    transition, effect = _linearised(model, steps)
    costs = np.diag(np.asarray(state_costs, np.float64))
    value = np.array(costs)
    for _ in range(_RICCATI_ROUNDS):
        pull = effect.T @ value
        gains = np.linalg.solve(action_cost * np.eye(model.nu) + pull @ effect, pull @ transition)
        value = costs + transition.T @ value @ (transition - effect @ gains)
    return np.asarray(gains, np.float64)


def _linearised(model: Any, steps: int) -> tuple[Vector, Vector]:
    """How an agent step maps small states, [O, O], and small actions, [O, A], to the next state."""
    scratch = mujoco.MjData(model)
    joints, actions = model.nv, model.nu

    def after(change: Vector) -> Vector:
        mujoco.mj_resetData(model, scratch)
        scratch.qpos[:], scratch.qvel[:] = change[:joints], change[joints : 2 * joints]
        scratch.ctrl[:] = change[2 * joints :] * model.actuator_ctrlrange[:, 1]
        mujoco.mj_step(model, scratch, steps)
        return np.concatenate([scratch.qpos, scratch.qvel])

    changes = _DISTURBANCE * np.eye(2 * joints + actions)
    columns = [(after(change) - after(-change)) / (2 * _DISTURBANCE) for change in changes]
    both = np.stack(columns, axis=1)
    return both[:, : 2 * joints], both[:, 2 * joints :]
