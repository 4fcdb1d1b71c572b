"""Names of algorithms: what they give to a run's settings, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from newt.runs.algorithms import ALGORITHMS, AlgorithmName, overlay
from newt.runs.spec import RunSpec

TASKS = ["walker-walk", "mw-reach"]  # the second has a scripted expert
FIXED = [(name, path, value) for name in ALGORITHMS for path, value in ALGORITHMS[name].fixed.items()]


def spec_of(name: str, *, tasks: list[str] = TASKS, preset: str = "default", **changes: Any) -> RunSpec:
    algorithm = {"name": name, **changes.pop("algorithm", {})}
    return RunSpec.model_validate({"tasks": tasks, "preset": preset, "algorithm": algorithm, **changes})


def nested(path: str, value: Any) -> dict[str, Any]:
    result: Any = value
    for part in reversed(path.split(".")):
        result = {part: result}
    return dict(result)


def other_value(path: str, value: Any) -> Any:
    if path == "obs":
        return "state+rgb"
    if path == "init_from":
        return "some-run"
    if isinstance(value, bool):
        return not value
    return ["some-set"] if isinstance(value, list) else value + 1


def refused(request: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        RunSpec.model_validate(request)
    errors = caught.value.errors()
    assert len(errors) == 1, errors
    return str(errors[0]["msg"])


def test_a_run_is_newt_unless_it_says_otherwise() -> None:
    spec = RunSpec.model_validate({"tasks": TASKS})
    assert spec.algorithm.name == "newt"
    assert spec == spec_of("newt")
    assert overlay({"tasks": TASKS}) == {}


@pytest.mark.parametrize("preset", ["default", "laptop"])
def test_tdmpc2_has_no_language_demonstrations_cloning_or_constraint(preset: str) -> None:
    spec = spec_of("tdmpc2", preset=preset)
    model, train = spec.model_settings(), spec.train_settings()
    assert (model.language_dim, model.learned_embeddings, model.reads_language) == (96, True, False)
    assert (spec.has_demos(), spec.pretrains(), spec.demo_fraction()) == (False, False, 0.0)
    assert (train.bc_coef, train.warmup_updates) == (0.0, 0)
    assert (spec.plan_settings().constraint_weight(0), spec.algorithm.planning) == (0.0, True)
    assert not spec.starts_with_policy()
    single = spec_of("tdmpc2", tasks=["walker-walk"], model={"size": "B"}).model_settings()
    # Appendix F: a single-task agent of size B has these parameters.
    assert (single.language_dim, single.learned_embeddings, single.parameters()) == (0, False, 5_033_342)
    none = spec_of("tdmpc2", algorithm={"task_embedding_dim": 0}).model_settings()
    assert (none.language_dim, none.learned_embeddings) == (0, False)


@pytest.mark.parametrize("name", ["bc", "model-based-pretraining"])
@pytest.mark.parametrize("preset", ["default", "laptop"])
def test_learning_from_demonstrations_alone_takes_no_step(name: str, preset: str) -> None:
    spec = spec_of(name, preset=preset)
    assert (spec.schedule.total_env_steps, spec.seed_env_steps(), spec.online_updates()) == (0, 0, 0)
    assert spec.pretrain_updates() == (200_000 if preset == "default" else 2_000)
    assert (spec.learns_online(), spec.algorithm.planning, spec.has_demos()) == (False, False, True)
    assert spec.model_settings().policy_only == (name == "bc")
    assert spec.model_settings().reads_language


def test_cloning_without_language_is_told_no_task() -> None:
    model = spec_of("bc", tasks=["mw-reach"], algorithm={"language": False}, model={"size": "B"}).model_settings()
    assert (model.language_dim, model.policy_only) == (0, True)
    assert model.parameters() == 166_144 + 543_776  # encoder and policy of the single-task B of the paper


@pytest.mark.parametrize(("name", "path", "value"), FIXED, ids=[f"{name}-{path}" for name, path, _ in FIXED])
def test_what_a_name_fixes_can_be_said_and_not_changed(name: AlgorithmName, path: str, value: Any) -> None:
    request = nested(path, value)
    request["algorithm"] = {**request.get("algorithm", {}), "name": name}
    assert RunSpec.model_validate({"tasks": TASKS, **request}) == spec_of(name)
    wrong = nested(path, other_value(path, value))
    wrong["algorithm"] = {**wrong.get("algorithm", {}), "name": name}
    message = refused({"tasks": TASKS, **wrong})
    assert message.startswith(f"{path}: got ")
    assert f"algorithm {name} has" in message


@pytest.mark.parametrize("name", [name for name, algorithm in ALGORITHMS.items() if algorithm.needs_demos])
def test_what_needs_demonstrations_says_so(name: AlgorithmName) -> None:
    for without in ({"tasks": ["mujoco-ant"]}, {"tasks": TASKS, "demos": {"scripted_episodes": 0}}):
        message = refused({**without, "algorithm": {"name": name}})
        assert message.startswith(f"algorithm.name: {name} needs demonstrations")
    assert spec_of(name, tasks=["mujoco-ant"], demos={"sets": ["mine"]}).has_demos()


def test_unknown_names_and_vectors_beside_language_are_refused() -> None:
    assert "'tdmpc2'" in refused({"tasks": TASKS, "algorithm": {"name": "dreamer"}})
    message = refused({"tasks": TASKS, "algorithm": {"task_embedding_dim": 32}})
    assert message.startswith("algorithm.task_embedding_dim: got 32")
    learned = RunSpec.model_validate({"tasks": TASKS, "algorithm": {"language": False, "task_embedding_dim": 32}})
    assert (learned.model_settings().language_dim, learned.model_settings().learned_embeddings) == (32, True)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(list(ALGORITHMS)),
    preset=st.sampled_from(["default", "laptop"]),
    single=st.booleans(),
    section=st.fixed_dictionaries(
        {},
        optional={
            "language": st.booleans(),
            "planning": st.booleans(),
            "pretraining": st.none() | st.booleans(),
            "task_embedding_dim": st.none() | st.integers(0, 128),
        },
    ),
    demos=st.sampled_from([0, 2]),
)
def test_every_accepted_combination_is_stored_as_it_is(
    name: str, preset: str, single: bool, section: dict[str, Any], demos: int
) -> None:
    tasks = TASKS[:1] if single else TASKS
    request = {
        "tasks": tasks,
        "preset": preset,
        "algorithm": {"name": name, **section},
        "demos": {"scripted_episodes": demos},
    }
    try:
        spec, errors = RunSpec.model_validate(request), []
    except ValidationError as error:
        spec, errors = None, error.errors()
    if spec is None:
        assert len(errors) == 1
        assert "." in str(errors[0]["msg"]).partition(":")[0]  # names a field
        return
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    algorithm, model = ALGORITHMS[spec.algorithm.name], spec.model_settings()
    assert spec.has_demos() or not algorithm.needs_demos
    assert (spec.online_updates() > 0) == algorithm.online
    assert model.language_dim == 512 or not spec.algorithm.language
    assert not (model.learned_embeddings and spec.algorithm.language)
