"""Does it learn? PPO and FastTD3 on single tasks, in one process, with an evaluation now and then.

    python -m bench.learning ppo mujoco-reacher --seed 1 --steps 100000 --envs 8 --set hidden_dim=64

Prints a line an evaluation, and writes bench/results/learning/ALGORITHM_TASK_SEED.json; `--plot` draws what is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from newt.agent.task_table import TaskTable
from newt.baselines.learners import make_learner
from newt.baselines.vector import Policy, Transition, VectorLearner
from newt.runs.spec import RunSpec
from newt.tasks.embeddings import embed_tasks
from newt.tasks.registry import Task
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from services.sim.domains import make

RESULTS = Path(__file__).parent / "results" / "learning"
EVAL_EPISODES = 10
EVAL_SEED = 10_000
Floats = npt.NDArray[np.float32]


class Instances:
    """N simulators of one task, stepped one after the other."""

    def __init__(self, task: Task, count: int, seed: int) -> None:
        self._task, self._random = task, np.random.default_rng(seed)
        self._envs = [make(task.domain, task.name, rendering=False) for _ in range(count)]
        self.obs = np.stack([self._reset(row) for row in range(count)])

    def step(self, action: Floats) -> Transition:
        """One step of all; episodes that end begin anew."""
        before, N = self.obs, len(self._envs)
        reached, reward, over, ended = (
            np.zeros_like(before),
            np.zeros(N, np.float32),
            np.zeros(N, bool),
            np.zeros(N, bool),
        )
        self.obs = before.copy()
        for row, env in enumerate(self._envs):
            result = env.step(action[row, : self._task.action_dim])
            reached[row], reward[row] = _padded(result.obs), result.reward
            over[row], ended[row] = result.terminated, result.terminated or result.truncated
            self.obs[row] = self._reset(row) if ended[row] else reached[row]
        values = {
            "obs": before, "action": action, "reward": reward, "reached": reached, "terminated": over,
            "truncated": ended & ~over, "valid": np.ones(N, bool),
        }  # fmt: skip
        return Transition(**{name: torch.from_numpy(np.array(value)) for name, value in values.items()})

    def _reset(self, row: int) -> Floats:
        return _padded(self._envs[row].reset(int(self._random.integers(2**31))))


def evaluate(policy: Policy | None, task: Task, episodes: int = EVAL_EPISODES) -> tuple[float, float]:
    """Mean return and mean score of a policy, or of random actions; always of the same episodes."""
    env, random = make(task.domain, task.name, rendering=False), np.random.default_rng(0)
    returns, scores = [], []
    for episode in range(episodes):
        obs, total, over = env.reset(EVAL_SEED + episode), 0.0, False
        while not over:
            if policy is None:
                action = random.uniform(-1, 1, PADDED_ACTION_DIM).astype(np.float32)
            else:
                with torch.no_grad():
                    best = policy.best_action(torch.from_numpy(_padded(obs))[None], torch.zeros(1, dtype=torch.int64))
                action = best.numpy()[0]
            result = env.step(action[: task.action_dim])
            obs, over = result.obs, result.terminated or result.truncated
            total += result.reward
        returns.append(total)
        scores.append(result.score if env.corrected_score is None else env.corrected_score)
    env.close()
    return float(np.mean(returns)), float(np.mean(scores))


def learn(spec: RunSpec, evaluations: int) -> Iterable[dict[str, Any]]:
    """Trains to the end; yields steps, return and score at equal distances."""
    (task,) = spec.task_list()
    embedded = embed_tasks([task], spec.algorithm.text_encoder)
    table = TaskTable.build([task.name], embedded.vectors, [task.action_dim], [task.discount])
    config = spec.algorithm.fasttd3 if spec.algorithm.name == "fasttd3" else spec.algorithm.ppo
    N, total = spec.num_envs(), spec.schedule.total_env_steps
    tasks = torch.zeros(N, dtype=torch.int64)
    learner: VectorLearner = make_learner(
        config, table, tasks, PADDED_OBS_DIM, spec.seed, capacity_steps=-(-total // N)
    )
    instances, steps, start = Instances(task, N, spec.seed), 0, time.monotonic()
    told = dict(zip(("return", "score"), evaluate(None, task), strict=True))
    yield {"steps": 0, **told, "seconds": 0.0, "updates": 0}
    while steps < total:
        step = instances.step(learner.act(torch.from_numpy(instances.obs)).numpy())
        metrics = learner.observe(step)
        steps += N
        if steps * evaluations // total > (steps - N) * evaluations // total:
            told = dict(zip(("return", "score"), evaluate(learner.policy, task), strict=True))
            losses = {name: round(float(value), 5) for name, value in (metrics or {}).items()}
            yield {"steps": steps, **told, "seconds": time.monotonic() - start, "updates": learner.updates, **losses}


def main(
    algorithm: str,
    task: str,
    seed: Annotated[int, typer.Option()] = 1,
    steps: Annotated[int, typer.Option()] = 100_000,
    envs: Annotated[int, typer.Option()] = 8,
    evaluations: Annotated[int, typer.Option()] = 20,
    set_: Annotated[list[str], typer.Option("--set", help="NAME=VALUE of the algorithm's settings.")] = [],  # noqa: B006
) -> None:
    """Trains once and writes down what came of it."""
    torch.set_num_threads(1)
    settings = {name: json.loads(value) for name, value in (each.split("=", 1) for each in set_)}
    section = "fasttd3" if algorithm == "fasttd3" else "ppo"
    spec = RunSpec.model_validate(
        {
            "tasks": [task],
            "seed": seed,
            "algorithm": {"name": algorithm, section: settings},
            "schedule": {"total_env_steps": steps},
            "collect": {"envs_per_task": envs},
        }
    )
    curve = []
    for point in learn(spec, evaluations):
        curve.append(point)
        print(json.dumps({name: round(value, 4) for name, value in point.items()}), flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = ("steps", "return", "score", "updates", "seconds")
    record = {
        "algorithm": algorithm,
        "task": task,
        "seed": seed,
        "envs": envs,
        "settings": settings,
        "episodes": EVAL_EPISODES,
        "curve": [{name: point[name] for name in kept} for point in curve],
    }
    (RESULTS / f"{algorithm}_{task}_{seed}.json").write_text(json.dumps(record, indent=1) + "\n")


def _padded(values: Floats) -> Floats:
    padded = np.zeros(PADDED_OBS_DIM, np.float32)
    padded[: len(values)] = values
    return padded


if __name__ == "__main__":
    typer.run(main)
