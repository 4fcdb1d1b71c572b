"""The simulator service as a gymnasium.vector.VectorEnv, for anybody's RL code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from newt.client.addresses import sim_address
from newt.client.sim import AutoReset, ObsMode, SimClient
from newt.client.steps import Observation, Step
from newt.errors import PreconditionError
from newt.tasks.pace import real_time
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.numbers import MAX_UINT64, whole

_AUTO_RESET = {mode: AutoReset[mode.name] for mode in AutoresetMode}
_FRAME_SHAPE = (3, 224, 224)


class RemoteVectorEnv(VectorEnv[Any, npt.NDArray[Any], npt.NDArray[Any]]):
    """N simulator instances somewhere else, stepped together.

        envs = RemoteVectorEnv("walker-walk", num_envs=8, address="127.0.0.1:50051")
        obs, info = envs.reset(seed=0)
        for _ in range(1000):
            obs, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        envs.close()

    Observations are float32[N, obs_dim]; with `obs_mode="rgb"`, a dict of that as `state` and uint8[N, 3, 224, 224]
    as `rgb`. If the tasks differ in their dimensions, observations are zero-padded to 128 columns and actions have
    16, of which each task reads its first ones (`envs.tasks` has the dimensions).

    Seeding: `reset(seed=s)` seeds row i with s + i; the same seed and actions give the same episodes, those after the
    first included. Without a seed, episodes are random.

    `info` has `success` (NaN where the task defines none), `score` (as published) and `corrected_score` (the same but
    for the tasks of newt.tasks.corrected_scores: report this one) of every row, each with its mask, and `episode_seed`
    for rows that have just been reset. Episodes end as gymnasium's SAME_STEP, NEXT_STEP or DISABLED mode says; under
    SAME_STEP, `final_obs` and `final_info` hold what belongs to the ended episodes; under NEXT_STEP, the step after an
    end ignores the row's action and returns the next episode's first observation with reward 0. If a simulator crashes,
    its row is truncated with reward 0 and its last observation as the final one, and `info["env_error"]` marks it.

    Actions outside [-1, 1] are refused; gymnasium.wrappers.vector.ClipAction clips them.

    The lease is kept alive for as long as the object lives.

    Args:
        tasks: One name for all rows, or one per row.
        num_envs: Number of rows; needed if `tasks` is one name, and must otherwise agree with it.
        address: host:port of the simulator service; None: what $NEWT_SIM says.
        obs_mode: `state`, or `rgb` for state and frames.
        autoreset_mode: When the next episode begins. Gymnasium's own vectors and some of its wrappers
            (NormalizeObservation) want NEXT_STEP.
        with_expert: Put the scripted expert's actions into `info["expert_action"]`.
        timeout_s: Deadline of a call, which waits as long for a server that is away. Building the simulators may take
            longer.

    Raises:
        ValueError: Arguments that do not fit together.
        NewtError: What the server says: unknown task, no room, unreachable, ...
    """

    def __init__(
        self,
        tasks: str | Sequence[str],
        num_envs: int | None = None,
        *,
        address: str | None = None,
        obs_mode: Literal["state", "rgb"] = "state",
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        with_expert: bool = False,
        timeout_s: float = 120.0,
    ) -> None:
        if isinstance(tasks, str):
            if num_envs is None or num_envs < 1:
                raise ValueError(f"got num_envs={num_envs} for one task name; expected a positive number")
            tasks = [tasks] * num_envs
        elif num_envs not in (None, len(tasks)):
            raise ValueError(f"got {len(tasks)} tasks and num_envs={num_envs}; leave num_envs out")
        if autoreset_mode not in _AUTO_RESET:
            raise ValueError(f"got {autoreset_mode!r}; expected a gymnasium.vector.AutoresetMode")
        if obs_mode not in ("state", "rgb"):
            raise ValueError(f"got obs_mode={obs_mode!r}; expected 'state' or 'rgb'")
        self._rgb = obs_mode == "rgb"
        self._client = SimClient(sim_address(address, tasks), timeout_s)
        try:
            self._session = self._client.open(
                tasks,
                # Fresh entropy: without a seed, no two runs are alike.
                np.random.SeedSequence().generate_state(len(tasks), np.uint64).tolist(),
                obs_mode=ObsMode.STATE_RGB if self._rgb else ObsMode.STATE,
                auto_reset=_AUTO_RESET[autoreset_mode],
                with_expert=with_expert,
                keep_alive=True,
            )
        except BaseException:
            self._client.close()
            raise
        self.tasks = self._session.tasks
        self.num_envs = len(self.tasks)
        self.render_mode = "rgb_array"
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": real_time(self.tasks),
            "autoreset_mode": autoreset_mode,
        }
        self.autoreset_mode = autoreset_mode
        self._same_step = autoreset_mode is AutoresetMode.SAME_STEP
        self._next_step = autoreset_mode is AutoresetMode.NEXT_STEP
        dims = {(task.obs_dim, task.action_dim) for task in self.tasks}
        self._obs_dim, self._action_dim = dims.pop() if len(dims) == 1 else (PADDED_OBS_DIM, PADDED_ACTION_DIM)
        state = spaces.Box(-np.inf, np.inf, (self._obs_dim,), np.float32)
        self.single_observation_space = (
            spaces.Dict({"state": state, "rgb": spaces.Box(0, 255, _FRAME_SHAPE, np.uint8)}) if self._rgb else state
        )
        self.single_action_space = spaces.Box(-1.0, 1.0, (self._action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts new episodes.

        Args:
            seed: Seed of row 0, the others following it; or one per row, where None continues the row's own sequence.
            options: `reset_mask`, bool[N], limits the reset to its true rows.

        Returns:
            The observations of all rows, and `episode_seed` of those that were reset.
        """
        mask = self._reset_mask(options)
        seeds = self._seeds(seed)
        rows = np.flatnonzero(mask).tolist()
        fresh = [row for row in rows if seeds.get(row) is None]
        seeded = {row: value for row in rows if (value := seeds.get(row)) is not None}
        with self._session.in_use():
            # The first reset of a session must be of all rows at once.
            observation = self._session.reset(rows) if fresh else None
            if seeded:
                observation = self._session.reset(list(seeded), list(seeded.values()))
        assert observation is not None  # The mask is not empty.
        return self._obs(observation), self._reset_info(observation, mask)

    def step(
        self, actions: npt.NDArray[Any]
    ) -> tuple[Any, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """One step of all rows.

        Args:
            actions: [N, action_dim] in [-1, 1].

        Raises:
            UnavailableError, LostError: The server stayed away, its simulators dead, or the step takes longer than
                `timeout_s`; go on with `reset`, as after Ctrl-C.
            PreconditionError: The step before this one has failed like that, and no `reset` followed; or another
                thread is using this environment.
        """
        with self._session.in_use():
            self.step_async(actions)
            return self.step_wait()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Starts a step; `step_wait` must follow. What you do between the two overlaps with the simulators' work.

        Arguments and errors are those of `step`.
        """
        actions = np.asarray(actions, np.float32)
        if actions.shape != (self.num_envs, self._action_dim):
            raise ValueError(f"got actions of shape {actions.shape}, expected {(self.num_envs, self._action_dim)}")
        padded = np.zeros((self.num_envs, PADDED_ACTION_DIM), np.float32)
        padded[:, : self._action_dim] = actions
        with self._session.in_use():
            if self._session.stepping:
                raise PreconditionError(
                    "the last step failed half way, so what it did is unknown: reset before the next"
                )
            self._session.send(padded)

    def step_wait(self) -> tuple[Any, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], dict[str, Any]]:
        """What the step has led to that `step_async` started. Raises as `step`; RuntimeError if none was started."""
        step = self._session.receive(self._client.timeout_s)
        reward = step.reward.astype(np.float64)
        reward[step.crashed] = 0.0
        return (
            self._obs(step.observation),
            reward,
            step.terminated.copy(),
            step.truncated.copy(),
            self._step_info(step),
        )

    def render(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """Draws all rows: N frames, uint8[224, 224, 3]."""
        return tuple(self._session.render())

    def close_extras(self, **kwargs: Any) -> None:
        """Gives the instances back."""
        self._session.close()
        self._client.close()

    def _seeds(self, seed: int | Sequence[int | None] | None) -> dict[int, int | None]:
        if seed is None:
            return {}
        if isinstance(seed, Sequence | np.ndarray):
            if len(seed) != self.num_envs:
                raise ValueError(f"got {len(seed)} seeds, expected one for each of {self.num_envs} rows")
            return {row: None if one is None else whole(f"seed[{row}]", one) for row, one in enumerate(seed)}
        first = whole("seed", seed, high=MAX_UINT64 - self.num_envs + 1)
        return {row: first + row for row in range(self.num_envs)}

    def _reset_mask(self, options: dict[str, Any] | None) -> npt.NDArray[np.bool_]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
            raise ValueError(f"got reset_mask {mask!r}; expected a NumPy array, bool[{self.num_envs}]")
        if not mask.any():
            raise ValueError("got a reset_mask without a true entry; expected at least one row to reset")
        return mask

    def _obs(self, observation: Observation) -> Any:
        state = observation.obs[:, : self._obs_dim].copy()
        return {"state": state, "rgb": _writable(observation.rgb)} if self._rgb else state

    def _reset_info(self, observation: Observation, mask: npt.NDArray[np.bool_] | None) -> dict[str, Any]:
        """For the rows of the mask, which have just been reset; None means no row."""
        info: dict[str, Any] = {}
        if mask is not None:
            seeds = np.where(mask, observation.episode_seed, np.uint64(0))
            info |= {"episode_seed": seeds, "_episode_seed": mask.copy()}
        if observation.expert_action is not None:
            expert = observation.expert_action[:, : self._action_dim].copy()
            info |= {"expert_action": expert, "_expert_action": np.ones(self.num_envs, np.bool_)}
        return info

    def _step_info(self, step: Step) -> dict[str, Any]:
        # Under NEXT_STEP, a row that shows a first observation was reset in place of a step.
        begun = (step.observation.episode_step == 0) & ~step.ended if self._next_step else None
        if begun is not None and begun.any():
            info = self._reset_info(step.observation, begun)
            if not begun.all():
                info |= _masked(step, ~begun)
        elif not (self._same_step and len(step.final_rows)):
            info = self._reset_info(step.observation, None)
            for name, values in _outcome(step):
                info[name], info[f"_{name}"] = values.copy(), np.ones(self.num_envs, np.bool_)
        else:
            restarted = np.zeros(self.num_envs, np.bool_)
            restarted[step.final_rows] = True
            info = self._reset_info(step.observation, restarted)
            if not restarted.all():
                info |= _masked(step, ~restarted)
            final_obs = np.full(self.num_envs, None, object)
            for position, row in enumerate(step.final_rows):
                state = step.final_obs[position, : self._obs_dim].copy()
                final_obs[row] = {"state": state, "rgb": _writable(step.final_rgb)[position]} if self._rgb else state
            info |= {"final_obs": final_obs, "_final_obs": restarted.copy()}
            info |= {"final_info": _masked(step, restarted), "_final_info": restarted.copy()}
        if step.crashed.any():
            info |= {"env_error": step.crashed.copy(), "_env_error": step.crashed.copy()}
        return info


def _outcome(step: Step) -> tuple[tuple[str, npt.NDArray[np.float32]], ...]:
    return ("success", step.success), ("score", step.score), ("corrected_score", step.corrected_score)


def _masked(step: Step, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    info: dict[str, Any] = {}
    for name, values in _outcome(step):
        info |= {name: np.where(mask, values, np.float32(0)), f"_{name}": mask.copy()}
    return info


def _writable(frames: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    assert frames is not None
    return frames.copy()
