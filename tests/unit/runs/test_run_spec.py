from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from newt.runs.algorithms import ALGORITHMS
from newt.runs.presets import PresetName, merged
from newt.runs.spec import RunSpec, unnamed_settings
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from services.learner.rest.errors import field_errors

NONSENSE: list[tuple[dict[str, Any], str, str]] = [
    ({"tasks": ["walker-wlak"]}, "tasks", "walker-walk"),
    ({"tasks": []}, "tasks", "at least 1"),
    ({"tasks": "walker-walk"}, "tasks", "list"),
    ({}, "tasks", "required"),
    ({"learning_rate": 1}, "learning_rate", "not permitted"),
    ({"preset": "desktop"}, "preset", "laptop"),
    ({"seed": -1}, "seed", "greater"),
    ({"seed": "1"}, "seed", "integer"),
    ({"name": "no/slashes"}, "name", "pattern"),
    ({"labels": {"Group": "a"}}, "labels.Group.[key]", "pattern"),
    ({"labels": {"group": ""}}, "labels.group", "pattern"),
    ({"labels": {"group": 1}}, "labels.group", "string"),
    ({"labels": {f"n{i}": "x" for i in range(17)}}, "labels", "at most 16"),
    ({"obs": "rgb"}, "obs", "state+rgb"),
    ({"obs": "state+rgb", "vision": {"frames": 0}}, "vision.frames", "greater than or equal to 1"),
    ({"model": {"size": "XXL"}}, "model.size", "XS"),
    ({"model": {"latent_dim": 13}}, "model", "multiple of simnorm_dim"),
    ({"model": {"depth": 3}}, "model.depth", "not permitted"),
    ({"train": {"lr": 0}}, "train.lr", "greater than 0"),
    ({"train": {"lr": math.nan}}, "train.lr", "less than"),
    ({"train": {"lr": "fast"}}, "train", "lr"),
    ({"train": {"momentum": 0.9}}, "train", "momentum"),
    ({"train": {"target_critic": "frozen"}}, "train.target_critic", "'ema'"),
    ({"train": 3}, "train", "dictionary"),
    ({"plan": {"num_samples": True}}, "plan", "num_samples"),
    ({"plan": {"num_elites": 4096}}, "plan", "num_elites"),
    ({"plan": {"temperature": math.inf}}, "plan.temperature", "less than"),
    ({"plan": {"max_std": math.inf}}, "plan.max_std", "less than"),
    ({"plan": {"iterations": 10**9}}, "plan.iterations", "1000"),
    ({"plan": {"num_samples": 16_384, "iterations": 100}}, "plan", "model steps per action"),
    ({"plan": {"num_samples": 16_384}, "model": {"latent_dim": 8192}}, "plan.num_samples", "narrower model"),
    ({"train": {"horizon": 65}}, "train.horizon", "64"),
    ({"model": {"latent_dim": 8 * 10**9}}, "model.latent_dim", "65536"),
    ({"model": {"mlp_dim": 65_536, "latent_dim": 65_536}}, "model", "parameters"),
    ({"schedule": {"total_env_steps": 10**400}}, "schedule.total_env_steps", "less than"),
    ({"schedule": {"total_env_steps": 10**15, "updates_per_env_step": 100}}, "schedule.updates_per_env_step", "count"),
    ({"replay": {"capacity_rows": 2**60}}, "replay.capacity_rows", "less than"),
    ({"replay": {"max_lead_updates": 2**64}}, "replay.max_lead_updates", "less than"),
    (
        {"replay": {"batch_size": 65_536}, "train": {"horizon": 64}, "plan": {"horizon": 64}},
        "replay.batch_size",
        "65536 sequences of horizon 64",
    ),
    ({"tasks": ["walker-walk"] * 1001}, "tasks", "at most 1000"),
    ({"tasks": ["w" * 200]}, "tasks.0", "at most 128"),
    ({"plan": {"horizon": 5}}, "plan.horizon", "train.horizon"),
    ({"schedule": {"total_env_steps": 0}}, "schedule.total_env_steps", "learns online"),
    ({"schedule": {"total_env_steps": True}}, "schedule.total_env_steps", "integer"),
    ({"schedule": {"total_env_steps": 100}}, "schedule.seed_env_steps", "leave nothing"),
    ({"schedule": {"updates_per_env_step": math.inf}}, "schedule.updates_per_env_step", "less than"),
    ({"replay": {"batch_size": 1}}, "replay.batch_size", "greater"),
    ({"replay": {"sampler": "best"}}, "replay.sampler", "episode_uniform"),
    ({"replay": {"demo_fraction": 1.5}}, "replay.demo_fraction", "less than"),
    ({"demos": {"sets": ["../etc"]}}, "demos.sets.0", "pattern"),
    ({"algorithm": {"pretraining": True}}, "algorithm.pretraining", "needs demonstrations"),
    ({"algorithm": {"language": "yes"}}, "algorithm.language", "boolean"),
    ({"collect": {"envs_per_task": 0}}, "collect.envs_per_task", "greater"),
    ({"evaluation": {"episodes_per_task": -1}}, "evaluation.episodes_per_task", "greater"),
]


@pytest.mark.parametrize(
    ("change", "field", "message"), NONSENSE, ids=[f"{f}-{i}" for i, (_, f, _) in enumerate(NONSENSE)]
)
def test_nonsense_names_the_field(change: dict[str, Any], field: str, message: str) -> None:
    request = {"tasks": ["walker-walk"], **change} if change else {}
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate(request)
    found = field_errors(caught.value.errors())
    assert [(error.field, message in error.message) for error in found] == [(field, True)], found


@pytest.mark.parametrize("preset", get_args(PresetName))
def test_what_is_stored_reads_back_the_same(preset: str) -> None:
    spec = RunSpec.model_validate(
        {"tasks": ["tour"], "preset": preset, "train": {"lr": 1e-4}, "model": {"size": "S", "mlp_dim": 64}}
    )
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_default_is_the_published_run() -> None:
    spec = RunSpec.model_validate({"tasks": ["walker-walk", "mw-reach"]})
    model = spec.model_settings()
    assert (model.latent_dim, model.encoder_dim, model.encoder_layers, model.mlp_dim) == (512, 1024, 3, 1024)
    assert (spec.schedule.total_env_steps, spec.schedule.pretrain_updates) == (100_000_000, 200_000)
    assert (spec.replay.batch_size, spec.replay.capacity_rows) == (1024, 10_000_000)
    assert spec.seed_env_steps() == 5 * 2 * 500
    assert spec.eval_every_env_steps() == 20_000
    assert spec.train_settings().warmup_updates == 5_000
    assert spec.plan_settings().num_samples == 512
    assert spec.plan_settings().constraint_weight(7_000_000) == pytest.approx(0.5)


def test_better_is_the_published_run_with_two_switches() -> None:
    published, better = (
        RunSpec.model_validate({"tasks": ["walker-walk"], "preset": preset}) for preset in ("default", "better")
    )
    assert better.model_settings() == replace(published.model_settings(), obs_scaling="per_task")
    assert better.train_settings() == replace(published.train_settings(), pretrain_bc_coef=10.0)
    rest = {"preset", "model", "train"}
    assert better.model_dump(exclude=rest) == published.model_dump(exclude=rest)


def test_updates_follow_from_steps() -> None:
    spec = RunSpec.model_validate(
        {
            "tasks": ["walker-walk"],
            "schedule": {"total_env_steps": 10_000, "seed_env_steps": 3_000, "updates_per_env_step": 0.075},
        }
    )
    assert spec.online_updates() == 525


def test_collection_leads_by_a_few_steps_of_all_envs() -> None:
    def lead(tasks: str, **replay: int) -> int:
        return RunSpec.model_validate({"tasks": [tasks], "replay": replay}).max_lead_updates()

    assert lead("mmbench") == math.ceil(0.075 * 4 * 200) == 60
    assert lead("walker-walk") == 8
    assert lead("walker-walk", max_lead_updates=3) == 3
    assert lead("walker-walk", max_lead_updates=0) == 0


def test_updates_wait_for_every_task_but_not_beyond_the_run() -> None:
    def until(**schedule: int) -> int:
        spec = {"tasks": ["walker-walk", "mujoco-reacher"], "schedule": {"seed_env_steps": 100, **schedule}}
        return RunSpec.model_validate(spec).all_tasks_until_env_steps()

    assert until() == 100 + 2 * 2 * 500
    assert until(total_env_steps=900) == 900


def test_explicit_values_win_over_the_preset() -> None:
    spec = RunSpec.model_validate(
        {"tasks": ["mw-reach"], "preset": "laptop", "plan": {"num_samples": 64}, "model": {"size": "B"}}
    )
    plain = RunSpec.model_validate({"tasks": ["mw-reach"], "preset": "laptop"})
    assert (spec.plan.num_samples, spec.model.size) == (64, "B")
    assert spec.plan.iterations == plain.plan.iterations < 6  # the rest of the section stays the preset's
    assert plain.model.size == "XS"


def test_the_laptop_preset_scales_to_its_total() -> None:
    def spec(total: int) -> RunSpec:
        schedule = {"total_env_steps": total}
        return RunSpec.model_validate({"tasks": ["tour"], "preset": "laptop", "schedule": schedule})

    small, large = spec(10_000), spec(80_000)
    assert 8 * small.seed_env_steps() == large.seed_env_steps() < 80_000
    for run in (small, large):  # so short a run never leaves its policy
        assert run.plan_settings().constraint_weight(run.schedule.total_env_steps) == 1.0


def test_without_demonstrations_nothing_is_pretrained_nor_constrained() -> None:
    spec = RunSpec.model_validate({"tasks": ["walker-walk"]})  # no scripted expert
    assert not spec.has_demos()
    assert (spec.pretrains(), spec.pretrain_updates(), spec.demo_fraction()) == (False, 0, 0.0)
    assert not spec.plan_settings().constrained
    assert spec.train_settings().warmup_updates == 0


def test_guided_tasks_are_those_that_the_policy_knows_first() -> None:
    def guided(**request: Any) -> list[str]:
        spec = RunSpec.model_validate({"tasks": ["mw-reach", "walker-walk"], "demos": {"sets": ["mine"]}, **request})
        return spec.guided_tasks({"mw-reach": 3, "walker-walk": 0})

    assert guided() == ["mw-reach"]
    assert guided(algorithm={"pretraining": False}) == []
    assert guided(init_from="other") == ["mw-reach", "walker-walk"]
    assert guided(tasks=["walker-walk"]) == []


def test_demonstrations_switch_pretraining_on() -> None:
    spec = RunSpec.model_validate({"tasks": ["walker-walk", "mw-reach"], "demos": {"sets": ["mine"]}})
    assert spec.demo_sets() == ["mine", "scripted-20"]
    assert [task.name for task in spec.expert_tasks()] == ["mw-reach"]
    assert spec.pretrains()
    assert spec.plan_settings().constrained
    off = spec.model_copy(update={"algorithm": spec.algorithm.model_copy(update={"pretraining": False})})
    assert (off.pretrains(), off.demo_fraction()) == (False, 0.5)


def test_without_language_the_model_sees_none() -> None:
    spec = RunSpec.model_validate({"tasks": ["walker-walk"], "algorithm": {"language": False}})
    assert spec.model_settings().language_dim == 0


def test_image_columns_follow_the_observations() -> None:
    vision = {"feature_dim": 24, "frames": 3}
    spec = RunSpec.model_validate({"tasks": ["walker-walk"], "obs": "state+rgb", "vision": vision})
    assert spec.image_dim() == spec.model_settings().image_dim == 72
    assert RunSpec.model_validate({"tasks": ["walker-walk"], "vision": vision}).model_settings().image_dim == 0


TRAINING_TASKS = {
    "dmcontrol": 21, "dmcontrol-ext": 16, "metaworld": 49, "maniskill": 36, "mujoco": 6,
    "box2d": 8, "robodesk": 6, "ogbench": 12, "miniarcade": 19, "atari": 27,
}  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "count"),
    [
        *(([domain], count) for domain, count in TRAINING_TASKS.items()),
        (["mmbench"], 200),
        (["test20"], 20),
        (list(TRAINING_TASKS), 200),
        (["mmbench", "test20", "mw-*"], 220),  # each once, where it is mentioned first
        (["og-ant*", "atari-pong", "og-ant"], 8),
        (["mw-button-press", "mw-button-press"], 1),
    ],
    ids=str,
)
def test_every_domain_and_set_is_a_run(tasks: list[str], count: int) -> None:
    for preset in get_args(PresetName):
        spec = RunSpec.model_validate({"tasks": tasks, "preset": preset, "schedule": {"total_env_steps": 10_000_000}})
        names = [task.name for task in spec.task_list()]
        assert len(set(names)) == len(names) == count == spec.num_envs()
        assert all(task.obs_dim <= PADDED_OBS_DIM and task.action_dim <= PADDED_ACTION_DIM for task in spec.task_list())
        assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_whole_set_is_in_the_order_of_published_checkpoints() -> None:
    spec = RunSpec.model_validate({"tasks": ["mmbench"]})
    assert [task.index for task in spec.task_list()] == list(range(200))


def test_a_run_may_evaluate_nothing() -> None:
    spec = RunSpec.model_validate({"tasks": ["walker-walk"], "evaluation": {"episodes_per_task": 0}})
    assert (spec.evaluates(), spec.eval_every_env_steps()) == (False, 0)


@pytest.mark.parametrize("preset", get_args(PresetName))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("schedule", [{}, {"total_env_steps": 1_000_000}])
def test_what_is_not_named_is_known_before(preset: str, algorithm: str, schedule: dict[str, int]) -> None:
    if not ALGORITHMS[algorithm].online:  # type: ignore[index]
        schedule = {}
    request = {"preset": preset, "algorithm": {"name": algorithm}, "schedule": schedule}
    spec = RunSpec.model_validate({"tasks": ["mujoco-reacher"], **request})
    assert merged(unnamed_settings(request), request) == spec.model_dump(mode="json", exclude={"tasks"})


def test_what_a_checkpoint_has_is_not_said() -> None:
    values = unnamed_settings({"preset": "laptop", "init_from": "run-1a2b3c4d"})
    assert not {"model", "obs", "vision"} & values.keys()
    assert "language" not in values["algorithm"]
    assert values["demos"]["scripted_episodes"] == 0
    assert values["plan"]["iterations"] == 3
