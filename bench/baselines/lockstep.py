"""The training loop in one process: act for all tasks, step all simulators, store, update, and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from newt.agent.batch import UpdateBatch
from newt.agent.inference import InferenceModel, fastest_dtype
from newt.agent.planning import Planner
from newt.agent.task_table import TaskTable
from newt.agent.update import Updater
from newt.agent.world_model import WorldModel
from newt.runs.spec import RunSpec
from newt.tasks.embeddings import embed_tasks
from services.sim.domains import make

Floats = npt.NDArray[np.float32]


@dataclass
class _Episode:
    obs: list[Floats]
    action: list[Floats] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Stored:
    task: int
    obs: Floats
    action: Floats
    reward: Floats


class LockstepLoop:
    """The online phase of a run: its tasks, model, planning budget, batch size and update ratio, but no services.

    The agent is ours: what is compared is the way in which simulation, planning and training follow one another. There
    are no demonstrations, so no task is guided.

    Args:
        spec: Spec of the run.

    Raises:
        ValueError: The spec draws single transitions, which this loop does not.
    """

    def __init__(self, spec: RunSpec) -> None:
        if spec.replay.sampler == "transition_uniform":
            raise ValueError("replay.sampler: got transition_uniform, expected task_balanced or episode_uniform")
        self._spec = spec
        tasks = spec.task_list()
        self._tasks = [task for task in tasks for _ in range(spec.collect.envs_per_task)]
        table = TaskTable.build(
            [task.name for task in tasks],
            embed_tasks(tasks, spec.algorithm.text_encoder).vectors,
            [task.action_dim for task in tasks],
            [task.discount for task in tasks],
        )
        model = WorldModel(spec.model_settings(), table, torch.Generator().manual_seed(spec.seed))
        self._updater = Updater(model, spec.train_settings())
        self._planner = Planner(InferenceModel.from_model(model, fastest_dtype()), spec.plan_settings())
        self._refreshed = time.monotonic()
        self._index = torch.tensor([tasks.index(task) for task in self._tasks])
        self._random = np.random.default_rng(spec.seed)
        self._envs = [make(task.domain, task.name, rendering=False) for task in self._tasks]
        self._episodes = [self._begin(row) for row in range(len(self._envs))]
        self._first = torch.ones(len(self._envs), dtype=torch.bool)
        self._mean: torch.Tensor | None = None
        self._stored: list[list[_Stored]] = [[] for _ in tasks]
        self._due = 0.0
        self.env_steps = 0
        self.updates = 0

    def seed(self, env_steps: int) -> None:
        """Collects with random actions, without updates, until there is something to learn from."""
        while self.env_steps < env_steps:
            self._step(self._random.uniform(-1, 1, (len(self._envs), 16)).astype(np.float32))

    def run(self, seconds: float) -> float:
        """Trains for a while; returns env steps per second."""
        before, start = self.env_steps, time.monotonic()
        while (taken := time.monotonic() - start) < seconds:
            self._round()
        return (self.env_steps - before) / taken

    def learn(self, env_steps: int) -> None:
        """Trains until so many env steps are taken in all."""
        while self.env_steps < env_steps:
            self._round()

    def evaluate(self, episodes: int, seed: int) -> dict[str, list[float]]:
        """Scores of whole episodes of every task, planned without exploration, with the newest weights."""
        self._refresh()
        tasks = self._spec.task_list()
        return {
            task.name: [self._score(row, seed + episode) for episode in range(episodes)]
            for row, task in enumerate(tasks)
        }

    def _score(self, row: int, seed: int) -> float:
        task = self._spec.task_list()[row]
        with closing(make(task.domain, task.name, rendering=False)) as env:
            obs, mean, ended = env.reset(seed), None, False
            draws = np.random.default_rng(seed)
            while not ended:
                plan = self._planner.plan(
                    torch.from_numpy(_padded(obs, 128))[None],
                    torch.tensor([row]),
                    seeds=torch.from_numpy(draws.integers(0, 2**62, 1)),
                    prev_mean=mean,
                    explore=False,
                )
                mean, result = plan.next_mean, env.step(plan.action[0, : task.action_dim].numpy())
                obs, ended = result.obs, result.terminated or result.truncated
            return result.score if env.corrected_score is None else env.corrected_score

    def _round(self) -> None:
        """A step of every simulator, and the updates that are due after it."""
        self._step(self._plan())
        self._due += self._spec.schedule.updates_per_env_step * len(self._envs)
        while self._due >= 1:
            self._updater.rl_update(self._batch())
            self.updates += 1
            self._due -= 1
        if time.monotonic() - self._refreshed > self._spec.schedule.publish_every_s:
            self._refresh()

    def _refresh(self) -> None:
        self._planner.model = InferenceModel.from_model(self._updater.model, fastest_dtype())
        self._refreshed = time.monotonic()

    def close(self) -> None:
        """Frees the simulators."""
        for env in self._envs:
            env.close()

    def _plan(self) -> Floats:
        obs = np.stack([episode.obs[-1] for episode in self._episodes])
        plan = self._planner.plan(
            torch.from_numpy(obs),
            self._index,
            seeds=torch.from_numpy(self._random.integers(0, 2**62, len(self._envs))),
            prev_mean=self._mean,
            first=self._first,
        )
        self._mean = plan.next_mean
        action: Floats = plan.action.numpy()
        return action

    def _step(self, actions: Floats) -> None:
        for row, (env, task, action) in enumerate(zip(self._envs, self._tasks, actions, strict=True)):
            result = env.step(action[: task.action_dim])
            episode = self._episodes[row]
            episode.obs.append(_padded(result.obs, 128))
            episode.action.append(_padded(action[: task.action_dim], 16))
            episode.reward.append(result.reward)
            self._first[row] = result.terminated or result.truncated
            if self._first[row]:
                reward = np.asarray(episode.reward, np.float32)
                index, obs, actions = int(self._index[row]), np.stack(episode.obs), np.stack(episode.action)
                self._stored[index].append(_Stored(index, obs, actions, reward))
                self._episodes[row] = self._begin(row)
        self.env_steps += len(self._envs)

    def _begin(self, row: int) -> _Episode:
        return _Episode([_padded(self._envs[row].reset(int(self._random.integers(2**63))), 128)])

    def _batch(self) -> UpdateBatch:
        H, B = self._spec.train.horizon, self._spec.replay.batch_size
        if self._spec.replay.sampler == "task_balanced":
            of_tasks = [stored for stored in self._stored if stored]
            pools = [of_tasks[i] for i in self._random.integers(len(of_tasks), size=B)]
        else:
            pools = [[episode for stored in self._stored for episode in stored]] * B
        picks: Sequence[_Stored] = [pool[int(self._random.integers(len(pool)))] for pool in pools]
        starts = [int(self._random.integers(len(pick.reward) - H + 1)) for pick in picks]
        pairs = list(zip(picks, starts, strict=True))
        return UpdateBatch(
            obs=torch.from_numpy(np.stack([pick.obs[at : at + H + 1] for pick, at in pairs], 1)),
            action=torch.from_numpy(np.stack([pick.action[at : at + H] for pick, at in pairs], 1)),
            reward=torch.from_numpy(np.stack([pick.reward[at : at + H] for pick, at in pairs], 1)),
            terminated=torch.zeros(H, B, dtype=torch.bool),  # no task of the benchmark ends before its time
            task=torch.tensor([pick.task for pick in picks]),
        )


def _padded(values: Floats, width: int) -> Floats:
    padded = np.zeros(width, np.float32)
    padded[: len(values)] = values
    return padded
