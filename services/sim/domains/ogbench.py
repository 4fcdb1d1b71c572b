"""OGBench: running and ball pushing with an ant, and mazes for a point and an ant.

Of the package only the model files are used. Its environments draw from NumPy's global generator, write temporary
files and, in one case, need a graphics driver to be built; importing the package would bring all its domains along.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from newt.tasks.registry import get_task
from services.sim.domains.base import FRAME_SIZE, SimEnv, StepResult
from services.sim.domains.mujoco_frames import fixed_camera, renderer_for
from services.sim.domains.ogbench_mazes import CELL_SIZE, Maze, get_maze
from services.sim.domains.ogbench_routes import Route

_SUBSTEPS = 5  # Of 0.02 s: a control step is 0.1 s.
_RESET_NOISE = 0.1

_BEST_RUN = 250.0  # Metres, in og-ant; counts as a score of 1.
_STEPS_PER_DIRECTION = 100

_BALL_RADIUS = 0.25
_BALL_TOLERANCE = 0.5

_WALL_HEIGHT = 2.0
_START_NOISE = 1.0  # Metres around the centre of a cell, for start and goal.
_OBS_SCALE = 20.0
_POINT_SPEED = 0.2  # Metres per control step.


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance."""
    kinds: dict[str, type[_OgBenchEnv]] = {"og-ant": AntRunEnv, "og-antball": AntBallEnv}
    if task in kinds:
        return kinds[task](task, rendering)
    return (PointMazeEnv if task.startswith("og-point-") else AntMazeEnv)(task, rendering)


class _OgBenchEnv(SimEnv):
    """What all tasks share: a model, control steps, an episode's length, a camera."""

    def __init__(self, task: str, rendering: bool) -> None:
        facts = get_task(task)
        self._task, self._repeat, self._length = task, facts.action_repeat, facts.episode_length
        self.model = self._make_model()
        self.data: Any = mujoco.MjData(self.model)
        self._camera = self._make_camera()
        self._rng = np.random.default_rng()
        self._steps = 0
        if rendering:
            renderer_for(task, self.model, FRAME_SIZE)

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Draws everything from the seed."""
        self._rng = np.random.default_rng(seed)
        self._steps = 0
        mujoco.mj_resetData(self.model, self.data)
        self._draw_start()
        mujoco.mj_forward(self.model, self.data)
        return self._observe()

    def step(self, action: npt.NDArray[np.float32]) -> StepResult:
        """Repeats the action; reward, success and score are those of the last state."""
        for _ in range(self._repeat):
            self._control_step(action)
        self._steps += 1
        reward, success, score = self._judge()
        return StepResult(
            obs=self._observe(),
            reward=reward,
            terminated=False,
            truncated=self._steps >= self._length,
            success=success,
            score=score,
        )

    def render(self) -> npt.NDArray[np.uint8]:
        """The task's camera at 224 x 224."""
        return renderer_for(self._task, self.model, FRAME_SIZE).draw(self.model, self.data, self._camera)

    def _control_step(self, action: npt.NDArray[np.float32]) -> None:
        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data, nstep=_SUBSTEPS)

    def _perturb_reference_pose(self) -> None:
        """The start of an ant. The quaternion is perturbed like the other numbers; MuJoCo normalises it."""
        self.data.qpos += self._rng.uniform(-_RESET_NOISE, _RESET_NOISE, self.model.nq)
        self.data.qvel += _RESET_NOISE * self._rng.standard_normal(self.model.nv)

    @abstractmethod
    def _make_model(self) -> Any: ...

    @abstractmethod
    def _make_camera(self) -> Any: ...

    @abstractmethod
    def _draw_start(self) -> None:
        """Writes the first state of an episode."""

    @abstractmethod
    def _observe(self) -> npt.NDArray[np.float32]: ...

    @abstractmethod
    def _judge(self) -> tuple[float, float, float]:
        """Reward, success and score after an agent step."""


class AntRunEnv(_OgBenchEnv):
    """og-ant: an ant is paid for every metre in a direction, which changes every 100 steps.

    Observes the ant (27 numbers, without x and y) and the direction. Falling over ends nothing.
    """

    def reset(self, seed: int) -> npt.NDArray[np.float32]:
        """Also forgets the return."""
        self._return = 0.0
        return super().reset(seed)

    def _make_model(self) -> Any:
        return _load("online_locomotion/assets/ant.xml").compile()

    def _make_camera(self) -> Any:
        return fixed_camera(mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_CAMERA, "track"))

    def _draw_start(self) -> None:
        self._perturb_reference_pose()
        self._previous = self.data.qpos[:2].copy()
        self.direction = self._draw_direction()

    def _observe(self) -> npt.NDArray[np.float32]:
        return np.concatenate([self.data.qpos[2:], self.data.qvel, self.direction]).astype(np.float32)

    def _judge(self) -> tuple[float, float, float]:
        position = self.data.qpos[:2].copy()
        reward = float((position - self._previous) @ self.direction)
        self._previous = position
        self._return += reward
        if self._steps % _STEPS_PER_DIRECTION == 0:
            self.direction = self._draw_direction()
        return reward, math.nan, min(max(self._return, 0.0), _BEST_RUN) / _BEST_RUN

    def _draw_direction(self) -> npt.NDArray[np.float64]:
        direction = self._rng.standard_normal(2)
        return direction / np.linalg.norm(direction)


class _GoalEnv(_OgBenchEnv):
    """What the tasks with a visible goal share."""

    def _set_goal(self, goal: npt.NDArray[np.float64]) -> None:
        self.goal = goal
        self.model.geom("target").pos[:2] = goal


class AntBallEnv(_GoalEnv):
    """og-antball: an ant pushes a ball, dropped from 3 m, to a goal; success while the ball is there.

    Observes the ant and the ball without their x and y (18 numbers), the velocities (20), from the ant to the ball and
    from the ball to the goal. Paid for what both distances shrink.
    """

    def _make_model(self) -> Any:
        spec = _load("online_locomotion/assets/ant.xml")
        _add_target(spec, radius=0.4)
        ball = spec.worldbody.add_body(name="ball", pos=[0, 0, 3])
        ball.add_freejoint(name="ball_root")
        sphere = mujoco.mjtGeom.mjGEOM_SPHERE
        ball.add_geom(
            name="ball", type=sphere, size=[_BALL_RADIUS, 0, 0], material="ball", priority=1, conaffinity=1, condim=6
        )
        ball.add_light(name="ball_light", pos=[0, 0, 4], mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
        return spec.compile()

    def _make_camera(self) -> Any:
        # At the height where gymnasium's renderer looks: the median of the model's parts.
        reference = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, reference)
        return _camera_from_above((0, 0, float(np.median(reference.geom_xpos[:, 2]))), distance=8)

    def _draw_start(self) -> None:
        self._perturb_reference_pose()
        self.data.qpos[:2] = self._rng.uniform(-1, 1, 2)
        self.data.qpos[-7:-5] = self._rng.uniform(-2, 2, 2)
        self._set_goal(self._rng.uniform(-3, 3, 2))
        self._previous = self._distances()

    def _distances(self) -> tuple[float, float]:
        """From the ant to the ball, and from the ball to the goal."""
        ant, ball = self.data.qpos[:2], self.data.qpos[-7:-5]
        return float(np.linalg.norm(ant - ball)), float(np.linalg.norm(ball - self.goal))

    def _observe(self) -> npt.NDArray[np.float32]:
        qpos = self.data.qpos
        ant, ball = qpos[:2], qpos[-7:-5]
        return np.concatenate([qpos[2:-7], qpos[-5:], self.data.qvel, ball - ant, self.goal - ball]).astype(np.float32)

    def _judge(self) -> tuple[float, float, float]:
        (ant_before, ball_before), (ant, ball) = self._previous, self._distances()
        self._previous = ant, ball
        success = float(ball <= _BALL_TOLERANCE)
        return 10 * (2.5 * (ball_before - ball) + (ant_before - ant)), success, success


class _MazeEnv(_GoalEnv):
    """A maze: paid for being close to the goal, success while within the tolerance of it.

    Start and goal are drawn from the maze's pairs of cells, and within these. All observations are divided by 20.
    """

    _model_file: str
    _tolerance: float
    """Metres."""

    def __init__(self, task: str, rendering: bool) -> None:
        self._maze = get_maze(task.rpartition("-")[2])
        super().__init__(task, rendering)

    @property
    @abstractmethod
    def _effort(self) -> float:
        """What moving costs."""

    def _make_model(self) -> Any:
        spec = _load(self._model_file)
        _build_walls(spec, self._maze)
        _add_target(spec, radius=0.5)
        return spec.compile()

    def _make_camera(self) -> Any:
        middle = Maze.centre((3, 3)) + CELL_SIZE / 2
        return _camera_from_above((*middle, 0), distance=30)

    def _draw_places(self) -> npt.NDArray[np.float64]:
        """Places the goal; returns the start, float64[2]."""
        start, goal = self._maze.pairs[self._rng.integers(len(self._maze.pairs))]
        noise = self._rng.uniform(-_START_NOISE, _START_NOISE, (2, 2))
        self._set_goal(Maze.centre(goal) + noise[1])
        place: npt.NDArray[np.float64] = Maze.centre(start) + noise[0]
        return place

    def _relation_to_goal(self) -> list[npt.NDArray[np.float64]]:
        """The end of every observation: goal, from it to the agent, distance."""
        error = self.data.qpos[:2] - self.goal
        return [self.goal, error, np.array([np.linalg.norm(error)])]

    def _judge(self) -> tuple[float, float, float]:
        error = self.data.qpos[:2] - self.goal
        distance = float(np.linalg.norm(error))
        success = float(distance <= self._tolerance)
        cost = 0.5 * float(np.abs(error).sum()) + 0.5 * distance + self._effort
        return success - cost / _OBS_SCALE, success, success


class PointMazeEnv(_MazeEnv):
    """og-point-*: a ball of 0.7 m radius that is moved by up to 0.2 m per axis and control step.

    Observes its place, its last displacement, and the goal.
    """

    _model_file = "locomaze/assets/point.xml"
    _tolerance = 1.0

    def _draw_start(self) -> None:
        start = self._draw_places()
        self.data.qpos[:] = start
        self.data.qvel[:] = _RESET_NOISE * self._rng.standard_normal(self.model.nv)  # The first step forgets it.
        self._displacement = np.zeros(2)

    def _set_goal(self, goal: npt.NDArray[np.float64]) -> None:
        super()._set_goal(goal)
        self._route = Route(self._maze, goal)

    def _control_step(self, action: npt.NDArray[np.float32]) -> None:
        before = self.data.qpos.copy()
        self.data.qpos += np.float32(_POINT_SPEED) * action
        self.data.qvel[:] = 0
        mujoco.mj_step(self.model, self.data, nstep=_SUBSTEPS)  # Pushes it out of walls.
        self._displacement = self.data.qpos - before

    @property
    def _effort(self) -> float:
        return 0.025 * float(np.linalg.norm(self._displacement))

    def _observe(self) -> npt.NDArray[np.float32]:
        obs = np.concatenate([self.data.qpos, self._displacement, *self._relation_to_goal()])
        return (obs / _OBS_SCALE).astype(np.float32)

    def expert_action(self) -> npt.NDArray[np.float32]:
        """Along the shortest way, at full speed until the goal."""
        way = self._route.next_point(self.data.qpos) - self.data.qpos
        reach = self._repeat * _POINT_SPEED
        action: npt.NDArray[np.float32] = (way / max(np.abs(way).max(), reach)).astype(np.float32)
        return action


class AntMazeEnv(_MazeEnv):
    """og-ant-*: an ant, which observes itself (29 numbers), its place, and the goal."""

    _model_file = "locomaze/assets/ant.xml"
    _tolerance = 0.5

    def _draw_start(self) -> None:
        self._perturb_reference_pose()
        self.data.qpos[:2] = self._draw_places()

    @property
    def _effort(self) -> float:
        return 0.001 * float(np.linalg.norm(self.data.qvel))

    def _observe(self) -> npt.NDArray[np.float32]:
        place = self.data.qpos[:2]
        obs = np.concatenate([self.data.qpos, self.data.qvel, place, *self._relation_to_goal()])
        return (obs / _OBS_SCALE).astype(np.float32)


@cache
def _package_folder() -> Path:
    """Where ogbench is installed; finding it does not import it."""
    spec = find_spec("ogbench")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("ogbench is not installed; install newt[sim-ogbench]")
    return Path(spec.submodule_search_locations[0])


def _load(file: str) -> Any:
    """A model of the package as an editable mujoco.MjSpec."""
    return mujoco.MjSpec.from_file(str(_package_folder() / file))


def _build_walls(spec: Any, maze: Maze) -> None:
    half, height = CELL_SIZE / 2, _WALL_HEIGHT / 2
    for i, j in np.argwhere(maze.walls):
        spec.worldbody.add_geom(
            name=f"block_{i}_{j}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[*Maze.centre((i, j)), height],
            size=[half, half, height],
            contype=1,
            conaffinity=1,
            material="wall",
        )
    floor = spec.geom("floor")
    floor.pos[:2] = Maze.centre((3, 3)) + half
    floor.size[:2] = CELL_SIZE * np.array(maze.walls.shape) / 2


def _add_target(spec: Any, radius: float) -> None:
    """The disc that shows the goal; touches nothing."""
    spec.worldbody.add_geom(
        name="target",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[0, 0, 0.05],
        size=[radius, 0.05, 0],
        material="target",
        contype=0,
        conaffinity=0,
    )


def _camera_from_above(lookat: tuple[float, float, float], distance: float) -> Any:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = lookat
    camera.distance, camera.azimuth, camera.elevation = distance, 90, -90
    return camera
