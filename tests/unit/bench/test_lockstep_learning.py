"""The plain loop learns from every task alike, and is evaluated by whole episodes."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench import lockstep_learning
from bench.baselines.lockstep import LockstepLoop
from newt.runs.spec import RunSpec

TINY: dict[str, Any] = {
    "tasks": ["mujoco-inverted-pendulum", "mujoco-reacher"],
    "preset": "laptop",
    "seed": 3,
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {
        "total_env_steps": 1040,
        "seed_env_steps": 1000,
        "eval_every_env_steps": 520,
        "updates_per_env_step": 0.1,
    },
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 0},
    "evaluation": {"episodes_per_task": 1, "videos": False},
}


def test_batches_have_as_much_of_each_task_whatever_their_episodes_are_long() -> None:
    with closing(LockstepLoop(RunSpec.model_validate(TINY))) as loop:
        loop.seed(1000)  # one episode of the pendulum, ten of the reacher
        tasks = [loop._batch().task for _ in range(40)]
    assert sum(float((task == 0).float().mean()) for task in tasks) / len(tasks) == pytest.approx(0.5, abs=0.1)


def test_single_transitions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"replay.sampler: got transition_uniform"):
        LockstepLoop(RunSpec.model_validate({**TINY, "replay": {"sampler": "transition_uniform"}}))


def test_a_seed_becomes_a_curve_and_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep_learning, "RESULTS", tmp_path)
    record = lockstep_learning.learn(RunSpec.model_validate(TINY), threads=1)
    assert [point["env_steps"] for point in record["curve"]] == [1000, 1040]
    assert record["curve"][-1]["updates"] == 4
    assert {name: len(scores) for name, scores in record["curve"][-1]["scores"].items()} == dict.fromkeys(
        TINY["tasks"], 1
    )
    (tmp_path / "3.json").write_text(json.dumps({**record, "curve": [{"scores": scores_of_all()}]}))
    rows = lockstep_learning.table(tmp_path).splitlines()
    assert rows[0] == "| Task | seed 3: loop | seed 3: service |"
    assert "| cartpole-balance | 0.50 | missing |" in rows


def scores_of_all() -> dict[str, list[float]]:
    return {task.name: [0.25, 0.75] for task in lockstep_learning.spec_of(1).task_list()}
