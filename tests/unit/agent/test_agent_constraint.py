"""Whose plans follow the policy, and how far: by task and env step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from newt.agent.checkpoints import CheckpointError, weights_info, weights_to_bytes
from newt.agent.config import PlanConfig
from newt.agent.constraint import Guidance
from newt.agent.world_model import WorldModel

MakeModel = Callable[..., WorldModel]

PLAN = PlanConfig(constraint_start=1_000, constraint_duration=4_000)
TASKS = ("shown", "new")


@pytest.mark.parametrize(("env_steps", "weight"), [(0, 1.0), (1_000, 1.0), (2_000, 0.75), (4_000, 0.25), (5_000, 0.0)])
def test_a_guided_task_has_the_schedules_weight_and_any_other_none(env_steps: int, weight: float) -> None:
    guidance = Guidance(env_steps, frozenset({"shown"}))
    assert guidance.weights(PLAN, TASKS).tolist() == [weight, 0]
    assert guidance.weights(PLAN, TASKS[::-1]).tolist() == [0, weight]


def test_a_fresher_env_step_counts_more_than_that_of_the_weights() -> None:
    assert Guidance(0, frozenset({"shown"})).weights(PLAN, TASKS, env_step=3_000).tolist() == [0.5, 0]


def test_what_nobody_knows_is_as_it_was_before_it_was_stored() -> None:
    assert Guidance().weights(PLAN, TASKS).tolist() == [0, 0]  # how far is training?
    assert Guidance().weights(PLAN, TASKS, env_step=3_000).tolist() == [0.5, 0.5]  # by run, not by task
    assert Guidance(0, frozenset()).weights(PLAN, TASKS).tolist() == [0, 0]  # known: none


def test_a_switched_off_constraint_stays_off() -> None:
    free = PlanConfig(constrained=False)
    assert Guidance(0, frozenset(TASKS)).weights(free, TASKS).tolist() == [0, 0]


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(7), Guidance(7, frozenset()), Guidance(0, frozenset(TASKS))])
def test_guidance_travels_with_weights(make_model: MakeModel, guidance: Guidance) -> None:
    data = weights_to_bytes(make_model(), {"run_id": "r", **guidance.to_info()})
    info = weights_info(data)
    assert info["run_id"] == "r"
    assert Guidance.from_info(info) == guidance


def test_what_is_no_guidance_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(CheckpointError, match=r"info\.guided_tasks"):
        weights_info(weights_to_bytes(make_model(), {"guided_tasks": "shown"}))
    with pytest.raises(CheckpointError, match="safetensors"):
        weights_info(b"something else")
