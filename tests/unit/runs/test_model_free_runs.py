"""Settings of PPO and FastTD3 in a run: what they default to, what they fix, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from newt.baselines.config import UNTUNED_PPO, FastTD3Config, PPOConfig
from newt.runs.spec import RunSpec


def spec(name: str, **request: Any) -> RunSpec:
    algorithm = {"name": name, **request.pop("algorithm", {})}
    return RunSpec.model_validate({"tasks": ["mujoco-reacher"], **request, "algorithm": algorithm})


@pytest.mark.parametrize("preset", ["default", "laptop"])
@pytest.mark.parametrize("name", ["ppo", "ppo-untuned", "fasttd3"])
def test_a_spec_reads_back_as_what_it_was(name: str, preset: str) -> None:
    written = spec(name, preset=preset, algorithm={"ppo": {"lr": 0.001}, "fasttd3": {"n_step": 3}})
    assert RunSpec.model_validate_json(written.model_dump_json()) == written
    assert RunSpec.model_validate(written.model_dump(mode="json")) == written
    assert written.seed_env_steps() == 0
    assert not written.has_demos()
    assert not written.pretrains()


def test_names_have_their_constants_unless_the_request_says_otherwise() -> None:
    assert spec("ppo").algorithm.ppo == PPOConfig()
    assert spec("ppo-untuned").algorithm.ppo == UNTUNED_PPO
    assert spec("ppo-untuned", algorithm={"ppo": {"clip_value": True}}).algorithm.ppo.clip_value
    assert spec("fasttd3").algorithm.fasttd3 == FastTD3Config()


def test_updates_follow_the_env_steps() -> None:
    schedule, collect = {"total_env_steps": 1_000}, {"envs_per_task": 4}  # 250 steps of all envs
    assert spec("ppo", schedule=schedule, collect=collect).online_updates() == 1 * 64
    assert spec("ppo-untuned", schedule=schedule, collect=collect).online_updates() == 15 * 8
    assert spec("fasttd3", schedule=schedule, collect=collect).online_updates() == 241 * 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"obs": "state+rgb"}, "obs"),
        ({"init_from": "imported/soup"}, "init_from"),
        ({"demos": {"scripted_episodes": 3}}, "demos.scripted_episodes"),
        ({"resources": {"processes": 2}}, "resources.processes"),
        ({"algorithm": {"ppo": {"lr": "fast"}}}, "lr must be a number"),
        ({"algorithm": {"ppo": {"rate": 1}}}, "unknown PPOConfig settings"),
        ({"algorithm": {"ppo": {"rollout_steps": 0}}}, "rollout_steps"),
        ({"algorithm": {"ppo": {"rollout_steps": 8}}}, "algorithm.ppo: a rollout of 8 steps of 1 envs"),
    ],
)
def test_what_makes_no_sense_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        spec("ppo", **change)
