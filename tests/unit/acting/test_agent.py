"""A trained agent in a program of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_files import PLAN, TASKS, small_model, write_agent

from newt.agent import Agent
from newt.agent.constraint import Guidance
from newt.agent.planning import Planner
from newt.errors import CorruptDataError, InvalidInputError, NotFoundError

RANDOM = np.random.default_rng(0)


def load(folder: Path, **options: Any) -> Agent:
    return Agent.load(write_agent(folder / "agent.safetensors"), device="cpu", precision="float32", seed=3, **options)


def test_an_episode_is_planned_as_training_planned_it(tmp_path: Path) -> None:
    """Padding, warm start, first step, a seed for each step, the constraint weight of the task."""
    agent, planner = load(tmp_path), Planner(small_model(), PLAN)
    draws, weights = np.random.default_rng(3), Guidance(7_000_000, frozenset({"reach"})).weights(PLAN, TASKS)
    assert weights.tolist() == [0.5, 0, 0]
    prev_mean = None
    for step in range(4):
        obs = RANDOM.standard_normal(5)
        padded = torch.zeros(1, 128)
        padded[0, :5] = torch.from_numpy(obs)
        seed = draws.integers(0, 2**64, 1, np.uint64).view(np.int64)
        wanted = planner.plan(
            padded,
            torch.tensor([0]),
            seeds=torch.from_numpy(seed),
            prev_mean=prev_mean,
            first=torch.tensor([step == 0]),
            explore=False,
            constraint_weight=0.5,
        )
        prev_mean = wanted.next_mean
        action = agent.act(obs, task="reach")
        np.testing.assert_allclose(action, wanted.action[0, :2], atol=1e-5)
        assert (action.shape, action.dtype) == ((2,), np.float32)
        assert agent.last_plan is not None
        np.testing.assert_allclose(agent.last_plan.value, wanted.value, rtol=1e-4)


def test_after_a_reset_nothing_is_left_of_the_episode(tmp_path: Path) -> None:
    agent, episode = load(tmp_path), RANDOM.standard_normal((3, 24))

    def play() -> np.ndarray:
        return np.stack([agent.act(obs, "walk") for obs in episode])

    first, going_on = play(), play()
    agent.reset(seed=3)
    np.testing.assert_array_equal(play(), first)
    assert np.abs(going_on - first).max() > 1e-3


def test_rows_of_several_tasks_act_as_each_alone(tmp_path: Path) -> None:
    agent, rows = load(tmp_path, mode="policy"), [RANDOM.standard_normal(5), RANDOM.standard_normal(24)]
    together = agent.act(rows, ["reach", "walk"])
    assert together.shape == (2, 6)
    agent.reset()
    np.testing.assert_allclose(together[0, :2], agent.act(rows[0], "reach"), atol=1e-6)
    assert not together[0, 2:].any()
    np.testing.assert_allclose(together[1], agent.act(rows[1], "walk"), atol=1e-6)
    agent.reset()
    matrix = np.stack([np.pad(row, (0, 128 - len(row))) for row in rows])
    np.testing.assert_array_equal(agent.act(matrix, ["reach", "walk"]), together)


@pytest.mark.parametrize("change", ["reset", "task"])
def test_a_row_begins_anew_alone(tmp_path: Path, change: str) -> None:
    """By its own reset, or because it has another task: the other row's plan goes on."""
    kept, changed = load(tmp_path), load(tmp_path)
    obs = RANDOM.standard_normal((2, 5))
    for agent in (kept, changed):
        agent.act(obs, ["swim", "swim"])
    tasks = ["swim", "swim"]
    if change == "reset":
        changed.reset([0])
    else:
        tasks = ["reach", "swim"]
    kept.act(obs, ["swim", "swim"])
    changed.act(obs, tasks)
    assert kept.last_plan is not None
    assert changed.last_plan is not None
    apart = np.abs(kept.last_plan.next_mean - changed.last_plan.next_mean).max((1, 2))
    assert apart[0] > 1e-3
    assert apart[1] < 1e-5


@pytest.mark.parametrize(
    ("obs", "task", "field", "text"),
    [
        (np.zeros(6), "reach", "obs", None),  # zeros may follow
        (np.zeros(4), "reach", "obs", "got 4 columns, expected 5 for reach"),
        (np.ones(6), "reach", "obs", "numbers behind the 5 that reach has"),
        (np.zeros(129), "swim", "obs", "got 129 columns, expected 1 to 128 for swim"),
        ([0, 1, np.nan, 0, 0], "reach", "obs", "column 2 is nan"),
        ([[0] * 5, [0, 0, 0, 1e300, 0]], "reach", "obs", "row 1: column 3 is 1e+300"),
        (np.zeros((1, 1, 5)), "reach", "obs", "got [1, 1, 5], expected [columns]"),
        ([], "reach", "obs", "no row"),
        (["a"] * 5, "reach", "obs", "expected numbers"),
        (np.zeros(5), "reech", "task", "did you mean reach?"),
        (np.zeros(5), None, "task", "this agent knows 3"),
        (np.zeros((2, 5)), ["reach"], "task", "got 1 names for 2 rows"),
        (np.full(5, 1e38), "reach", "obs", "leads to NaN or infinity"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(
    tmp_path: Path, obs: Any, task: Any, field: str, text: str | None
) -> None:
    agent, clean = load(tmp_path, mode="policy"), load(tmp_path, mode="policy")
    if text is None:
        assert agent.act(obs, task).shape == (2,)
        return
    with pytest.raises(InvalidInputError) as caught:
        agent.act(obs, task)
    assert caught.value.field == field
    assert text in str(caught.value)
    np.testing.assert_array_equal(agent.act(np.ones(5), "reach"), clean.act(np.ones(5), "reach"))


def test_another_number_of_rows_needs_a_reset(tmp_path: Path) -> None:
    agent = load(tmp_path, mode="policy")
    agent.act(np.zeros((2, 5)), "reach")
    with pytest.raises(InvalidInputError, match="got 1 rows, the episode has 2; call reset"):
        agent.act(np.zeros(5), "reach")
    with pytest.raises(InvalidInputError, match="rows: got 2"):
        agent.reset([2])
    agent.reset()
    agent.act(np.zeros(5), "reach")


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    path = write_agent(tmp_path / "agent.safetensors")
    wrong: dict[str, Any] = {
        "mode": "mpc",
        "constraint_weight": 2,
        "seed": -1,
        "device": "tpu",
        "precision": "int8",
        "horizon": 65,
        "plan": {"num_samples": 2},
    }
    for options in ({name: value} for name, value in wrong.items()):
        with pytest.raises(InvalidInputError) as caught:
            Agent.load(path, **options)
        assert caught.value.field in options
    with pytest.raises(InvalidInputError, match="names its tasks itself"):
        Agent.load(path, tasks=["reach"])


def test_it_acts_by_its_policy_if_it_was_trained_so(tmp_path: Path) -> None:
    by_policy = {"algorithm": {"planning": False}}
    assert Agent.load(write_agent(tmp_path / "agent.safetensors", spec=by_policy)).mode == "policy"
    cloned = Agent.load(write_agent(tmp_path / "cloned.safetensors", small_model(policy_only=True)))
    assert cloned.mode == "policy"
    assert cloned.act(np.zeros(5), "reach").shape == (2,)
    with pytest.raises(InvalidInputError, match="no world model"):
        Agent.load(tmp_path / "cloned.safetensors", mode="planner")


def test_the_budget_and_the_horizon_can_be_changed(tmp_path: Path) -> None:
    agent = load(tmp_path, horizon=5, plan={"iterations": 1})
    action = agent.act(np.ones(5), "reach")
    assert agent.last_plan is not None
    assert agent.last_plan.next_mean is not None
    assert agent.last_plan.next_mean.shape == (1, 5, 16)
    agent.act(np.ones(5), "reach")
    assert np.abs(load(tmp_path, horizon=5).act(np.ones(5), "reach") - action).max() > 1e-4


def test_images_are_asked_for(tmp_path: Path) -> None:
    agent = Agent.load(write_agent(tmp_path / "agent.safetensors", small_model(image_dim=4)), mode="policy")
    with pytest.raises(InvalidInputError, match="image: got none"):
        agent.act(np.zeros(5), "reach")
    with pytest.raises(InvalidInputError, match=r"image: got shape \[1, 3\], expected \[1, 4\]"):
        agent.act(np.zeros(5), "reach", image=np.zeros(3))
    seen = [agent.act(np.zeros(5), "reach", image=np.full(4, value)) for value in (0, 1)]
    assert np.abs(seen[0] - seen[1]).max() > 1e-4


def test_a_folder_is_its_newest_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for age, name in enumerate(("0", "25_000")):
        write_agent(folder / f"{name}.safetensors", small_model(age))
        os.utime(folder / f"{name}.safetensors", (1000 + age, 1000 + age))
    newest = Agent.load(folder / "25_000.safetensors", seed=1).act(np.zeros(5), "reach")
    for place in (folder, tmp_path):
        np.testing.assert_array_equal(Agent.load(place, seed=1).act(np.zeros(5), "reach"), newest)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        Agent.load(tmp_path / "none")
    with pytest.raises(NotFoundError, match="a folder without a checkpoint"):
        Agent.load(tmp_path)
    path = write_agent(tmp_path / "agent.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptDataError, match=r"agent\.safetensors"):
        Agent.load(path)
    model = small_model()
    with torch.no_grad():
        next(model.parameters())[0] = torch.nan
    with pytest.raises(CorruptDataError, match="its training has diverged"):
        Agent.load(write_agent(path, model))
